"""Who may reach whom: each connection that is needed is allowed, and every other refused."""

import pytest
import yaml

from tests.infra.cluster_objects import (
    DEPLOYMENTS,
    PROJECT,
    Manifest,
    describe,
    find,
    get_app,
    get_containers,
    get_namespace,
    get_template,
    list_workloads,
    render,
)
from tests.infra.policy_world import OURS, OUTSIDE, allows, list_places, list_policies

POSTGRES = {"mhras-migration", "prefect-server", "mhras-flow-run", "mhras-registration"}
POSTGRES |= {"mlflow", "mhras-backup", "mhras-api", "postgres-exporter", "audit-verify"}
BOOTSTRAP = ("postgres-initdb", "postgres-join", "postgres-snapshot-recovery")

#: (from, to, port): everything that must work, in every deployment.
NEEDED = {
    ("mhras-api", "mlflow", 5000),
    ("mhras-flow-run", "mlflow", 5000),
    ("mhras-registration", "mlflow", 5000),
    ("blackbox-exporter", "mlflow", 5000),
    ("prefect-worker", "prefect-server", 4200),
    ("mhras-flow-run", "prefect-server", 4200),
    ("mhras-registration", "prefect-server", 4200),
    ("blackbox-exporter", "prefect-server", 4200),
    ("prometheus", "mhras-api", 9464),
    ("prometheus", "node-exporter", 9100),
    ("prometheus", "postgres-exporter", 9187),
    ("prometheus", "kube-state-metrics", 8080),
    ("prometheus", "blackbox-exporter", 9115),
    ("prometheus", "alertmanager", 9093),
    ("grafana", "prometheus", 9090),
    ("grafana", "loki", 3100),
    ("alloy", "loki", 3100),
}
POSTGRES_INSIDE = {(client, "postgres", 5432) for client in POSTGRES}
#: What CloudNativePG's instances, Jobs, poolers and operator need, and their metrics.
CLOUDNATIVEPG = {
    ("mhras-api", "postgres-pooler", 5432),
    ("audit-verify", "postgres-pooler", 5432),
    ("postgres-pooler", "postgres", 5432),
    ("prometheus", "postgres", 9187),
    ("prometheus", "postgres-pooler", 9127),
    *(
        (source, "postgres", port)
        for source in ("postgres", "operator", *BOOTSTRAP)
        for port in (5432, 8000)
    ),
}
INGRESS = {("ingress", "mhras-api", 8000), ("ingress", "grafana", 3000)}
SIGN_IN = {("oauth2-proxy", "prefect-server", 4200)}
SIGN_IN_BY_INGRESS = SIGN_IN | {("ingress", "mlflow", 5000), ("ingress", "oauth2-proxy", 4180)}
CERTIFICATES = {
    ("ingress", "acme-solver-mhras", 8089),
    ("ingress", "acme-solver-monitoring", 8089),
}
GATEWAY = SIGN_IN | {
    ("gateway", "mhras-api", 8000),
    ("gateway", "grafana", 3000),
    ("gateway", "mlflow", 5000),
    ("gateway", "oauth2-proxy", 4180),
    ("gateway", "acme-solver-mhras", 8089),
}
WORLDS = {
    "development": POSTGRES_INSIDE | INGRESS,
    "staging": POSTGRES_INSIDE | INGRESS | SIGN_IN_BY_INGRESS | CERTIFICATES,
    "production": POSTGRES_INSIDE | CLOUDNATIVEPG | INGRESS | SIGN_IN_BY_INGRESS | CERTIFICATES,
    "managed": INGRESS | SIGN_IN_BY_INGRESS | CERTIFICATES,
    "gateway": POSTGRES_INSIDE | CLOUDNATIVEPG | GATEWAY,
}
#: Ports on which anything at all listens.
PORTS = sorted({port for one in WORLDS.values() for _, _, port in one | NEEDED})
PORTS += [22, 443, 12345, 8081, 9095]
TO_OBJECT_STORE = {"mhras-api", "mhras-flow-run", "mlflow", "mhras-backup", "audit-verify"}
TO_OBJECT_STORE |= {"alertmanager", "oauth2-proxy"}
TO_API_SERVER = {"prefect-worker", "prometheus", "alloy", "kube-state-metrics"}
STRANGERS = ("ingress", "gateway", "operator", "stranger")

each_deployment = pytest.mark.parametrize("deployment", DEPLOYMENTS)


def list_ours(deployment: str) -> set[str]:
    return {name for name, one in list_places(deployment).items() if one.namespace in OURS}


def list_allowed_to(deployment: str, outside: str, port: int) -> set[str]:
    places, policies = list_places(deployment), list_policies(deployment)
    return {
        name
        for name in list_ours(deployment)
        if allows(policies, places[name], OUTSIDE[outside], port)
    }


@each_deployment
def test_exactly_the_needed_connections_are_allowed(deployment: str) -> None:
    places, policies = list_places(deployment), list_policies(deployment)
    governed = set(places) - set(STRANGERS)
    allowed = {
        (source, target, port)
        for source in places
        for target in governed
        for port in PORTS
        if allows(policies, places[source], places[target], port)
    }
    assert allowed == NEEDED | WORLDS[deployment]


@each_deployment
def test_only_some_reach_the_object_store_and_the_api_server(deployment: str) -> None:
    operators_pods = {name for name in list_ours(deployment) if name in list_pods_of_cnpg()}
    talking = TO_API_SERVER | (operators_pods if find(deployment, "Cluster") else set())
    expected = TO_OBJECT_STORE & set(list_places(deployment))

    assert list_allowed_to(deployment, "api-server", 6443) == talking
    assert list_allowed_to(deployment, "object-store", 443) == expected | talking
    assert not list_allowed_to(deployment, "object-store", 80)
    assert list_allowed_to(deployment, "kubelet", 10250) == {"prometheus"}


def list_pods_of_cnpg() -> set[str]:
    return {"postgres", "postgres-pooler", *BOOTSTRAP}


@each_deployment
def test_a_database_outside_is_reached_by_its_clients_where_there_is_one(deployment: str) -> None:
    clients = list_allowed_to(deployment, "database-outside", 5432)
    assert clients == (POSTGRES if deployment == "managed" else set())


@each_deployment
@pytest.mark.parametrize("protocol", ["UDP", "TCP"])
def test_every_pod_may_look_names_up_and_only_at_the_cluster_s_server(
    deployment: str, protocol: str
) -> None:
    from tests.infra.policy_world import make_pod

    dns = make_pod("dns", "kube-system", **{"k8s-app": "kube-dns"})
    places, policies = list_places(deployment), list_policies(deployment)
    for name in list_ours(deployment):
        assert allows(policies, places[name], dns, 53, protocol), name
        assert not allows(policies, places[name], OUTSIDE["object-store"], 53, protocol), name


@pytest.mark.parametrize("protocol", ["UDP", "TCP"])
@pytest.mark.parametrize("address", ["dns-of-node", "dns-service"])
def test_the_variant_for_nodelocal_dns_lets_every_pod_look_names_up_there(
    address: str, protocol: str
) -> None:
    for deployment, allowed in (("nodelocal", True), ("production", False)):
        places, policies = list_places(deployment), list_policies(deployment)
        for name in list_ours(deployment):
            found = allows(policies, places[name], OUTSIDE[address], 53, protocol)
            assert found is allowed, (deployment, name)


@pytest.mark.parametrize(("outside", "port"), [("api-server", 6443), ("kubelet", 10250)])
def test_the_variant_for_cilium_reaches_what_addresses_cannot_name(outside: str, port: int) -> None:
    assert list_allowed_to("cilium", outside, port) == list_allowed_to("production", outside, port)


@each_deployment
def test_every_namespace_of_ours_denies_by_default(deployment: str) -> None:
    denied = {
        get_namespace(one)
        for one in render(deployment)
        if one["kind"] == "NetworkPolicy"
        and one["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    }
    assert denied == {one["metadata"]["name"] for one in find(deployment, "Namespace")}


# What Prometheus scrapes.

PROMETHEUS = yaml.safe_load((PROJECT / "monitoring" / "prometheus" / "prometheus.yaml").read_text())
JOBS = {job["job_name"]: job for job in PROMETHEUS["scrape_configs"]}
#: Pods of an operator, and where they listen (read from its sources).
OPERATORS_METRICS = {"postgres": 9187, "postgres-pooler": 9127}
KUBELET_PORT = 10250
DISCOVERING = [name for name, one in JOBS.items() if "kubernetes_sd_configs" in one]
FIXED = [name for name, one in JOBS.items() if "static_configs" in one]


def list_listening(deployment: str) -> set[tuple[str, str, int]]:
    """(namespace, app, port) of every port that a container declares."""
    found = {
        (get_namespace(workload), get_app(workload), port["containerPort"])
        for workload in list_workloads(deployment)
        for container in get_containers(workload)
        for port in container.get("ports", [])
    }
    if find(deployment, "Cluster"):
        found |= {("mhras", app, port) for app, port in OPERATORS_METRICS.items()}
    return found


def find_targets(job: Manifest, deployment: str) -> set[tuple[str, str, int]]:
    """Return (namespace, app, port) of the pods that a scrape job of role pod finds."""
    keep = {
        rule["source_labels"][0].removeprefix("__meta_kubernetes_pod_"): rule["regex"].split("|")
        for rule in job["relabel_configs"]
        if rule.get("action") == "keep"
    }
    (discovery,) = job["kubernetes_sd_configs"]
    found = {
        (get_namespace(workload), get_app(workload), port["containerPort"])
        for workload in list_workloads(deployment)
        for container in get_containers(workload)
        for port in container.get("ports", [])
        if get_namespace(workload) in discovery["namespaces"]["names"]
        and get_app(workload) in keep["label_app"]
        and port["name"] in keep["container_port_name"]
    }
    if find(deployment, "Cluster"):
        found |= {
            ("mhras", app, port)
            for app, port in OPERATORS_METRICS.items()
            if app in keep["label_app"]
        }
    return found


@each_deployment
@pytest.mark.parametrize(
    "job", [name for name, one in JOBS.items() if "kubernetes_sd_configs" in one]
)
def test_every_discovered_target_has_a_port_that_listens_and_prometheus_reaches_it(
    deployment: str, job: str
) -> None:
    places, policies = list_places(deployment), list_policies(deployment)
    (discovery,) = JOBS[job]["kubernetes_sd_configs"]
    if discovery["role"] == "node":
        # A kubelet's own address and port, which no rule may change.
        assert not any(
            rule.get("target_label") == "__address__" for rule in JOBS[job]["relabel_configs"]
        )
        assert allows(policies, places["prometheus"], OUTSIDE["kubelet"], KUBELET_PORT)
        return
    targets = find_targets(JOBS[job], deployment)
    assert targets or (job == "cnpg" and not find(deployment, "Cluster"))
    assert targets <= list_listening(deployment)
    for namespace, app, port in targets:
        assert allows(policies, places["prometheus"], places[app], port), app
        assert may_list_pods(deployment, namespace), namespace


def may_list_pods(deployment: str, namespace: str) -> bool:
    return any(
        "pods" in rule["resources"] and {"list", "watch"} <= set(rule["verbs"])
        for role in find(deployment, "Role", "prometheus")
        if get_namespace(role) == namespace
        for rule in role["rules"]
    )


@each_deployment
@pytest.mark.parametrize("job", FIXED)
def test_every_fixed_target_is_a_service_whose_pods_prometheus_reaches(
    deployment: str, job: str
) -> None:
    places, policies = list_places(deployment), list_policies(deployment)
    rules = JOBS[job].get("relabel_configs", [])
    replaced = [r["replacement"] for r in rules if r.get("target_label") == "__address__"]
    addresses = replaced or [
        target for one in JOBS[job]["static_configs"] for target in one["targets"]
    ]
    for address in addresses:
        host, _, port = address.rpartition(":")
        if host == "localhost":
            continue
        (service,) = [
            one for one in find(deployment, "Service", host) if get_namespace(one) == "monitoring"
        ]
        (name,) = [p["targetPort"] for p in service["spec"]["ports"] if p["port"] == int(port)]
        app = service["spec"]["selector"]["app"]
        listening = {p for _, one, p in list_listening(deployment) if one == app}
        assert int(port) in listening, (address, name)
        assert allows(policies, places["prometheus"], places[app], int(port)), address


@each_deployment
def test_every_probe_asks_a_port_that_its_container_has(deployment: str) -> None:
    """A kubelet reaches its own pods whatever the policies say; the port must be there."""
    for workload in list_workloads(deployment):
        for container in get_template(workload)["spec"]["containers"]:
            names = {port["name"] for port in container.get("ports", [])}
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                asked = container.get(probe, {}).get("httpGet", {}).get("port")
                assert asked is None or asked in names, describe(workload)
