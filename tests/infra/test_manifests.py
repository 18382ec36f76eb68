"""Would a real API server take every overlay whole? Schemas, references, Pod Security."""

import re
import warnings
from typing import Any

import kubernetes_validate
import pytest

from tests.infra.cluster_objects import (
    DEPLOYMENTS,
    FOLDERS,
    Manifest,
    describe,
    find,
    get_containers,
    get_namespace,
    get_template,
    is_built_in,
    list_secrets,
    list_workloads,
    make_flow_run,
    render,
    render_text,
)

#: Kubernetes versions of which the schemas are at hand; 1.24, the guide's oldest, is not among
#: them, and every API used here is in it (autoscaling/v2 and policy/v1 came with 1.23 and 1.21).
VERSIONS = [
    pytest.param(f"1.{minor}", marks=[] if minor in (25, 37) else [pytest.mark.nightly])
    for minor in range(25, 38)
]
#: Secrets that an operator makes: CloudNativePG, cert-manager.
MADE_BY_OPERATORS = {
    ("mhras", "mhras-postgres-ca"): {"ca.crt"},
    ("mhras", "mhras-tls"): {"tls.crt", "tls.key"},
    ("monitoring", "grafana-tls"): {"tls.crt", "tls.key"},
}
each_environment = pytest.mark.parametrize("environment", DEPLOYMENTS)


def validate(one: Manifest, version: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kubernetes_validate.validate(one, version, strict=True)


def test_an_object_with_a_field_unknown_to_its_kind_is_refused() -> None:
    wrong = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"port": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(wrong, "1.30")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid_in_every_supported_version(version: str) -> None:
    seen: list[Manifest] = []
    for environment in DEPLOYMENTS:
        for one in [*render(environment), *list_secrets(environment), make_flow_run(environment)]:
            if not is_built_in(one) or one in seen:
                continue
            seen.append(one)
            try:
                validate(one, version)
            except (kubernetes_validate.ValidationError, Warning) as error:
                pytest.fail(f"{environment}: {describe(one)}: {error}")


@each_environment
def test_no_two_objects_share_a_name_and_each_has_its_namespace(environment: str) -> None:
    everything = [*render(environment), *list_secrets(environment)]
    names = [describe(one) for one in everything]
    assert len(names) == len(set(names))
    known = {one["metadata"]["name"] for one in find(environment, "Namespace")}
    cluster_wide = {"Namespace", "ClusterRole", "ClusterRoleBinding", "ClusterIssuer"}
    cluster_wide.add("PriorityClass")
    for one in everything:
        if one["kind"] not in cluster_wide:
            assert get_namespace(one) in known, describe(one)


@each_environment
def test_no_image_is_unpinned(environment: str) -> None:
    for workload in list_workloads(environment):
        for container in get_containers(workload):
            name, _, tag = container["image"].rpartition(":")
            assert name, container["image"]
            assert re.search(r"\d", tag), container["image"]
    assert ":latest" not in render_text(FOLDERS[environment])


def collect_keys(environment: str) -> dict[tuple[str, str, str], set[str]]:
    """Keys of every ConfigMap and Secret by kind, namespace and name."""
    keys = {("Secret", *place): names for place, names in MADE_BY_OPERATORS.items()}
    for one in [*find(environment, "ConfigMap"), *list_secrets(environment)]:
        values = one.get("data", {}) | one.get("stringData", {})
        keys[one["kind"], get_namespace(one), one["metadata"]["name"]] = set(values)
    return keys


def list_references(workload: Manifest) -> list[tuple[str, str, str | None]]:
    """Kind, name and key (None: all) of every ConfigMap and Secret a pod asks for."""
    pod = get_template(workload)["spec"]
    found: list[tuple[str, str, str | None]] = []
    for container in get_containers(workload):
        for source in container.get("envFrom", []):
            for kind, field in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
                if field in source:
                    found.append((kind, source[field]["name"], None))
        for variable in container.get("env", []):
            for kind, field in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
                if field in variable.get("valueFrom", {}):
                    reference = variable["valueFrom"][field]
                    key = None if reference.get("optional") else reference["key"]
                    found.append((kind, reference["name"], key))
    for volume in pod.get("volumes", []):
        if "configMap" in volume:
            found.append(("ConfigMap", volume["configMap"]["name"], None))
        if "secret" in volume:
            items = [item["key"] for item in volume["secret"].get("items", [])] or [None]
            found += [("Secret", volume["secret"]["secretName"], key) for key in items]
    return found


@each_environment
def test_every_configmap_and_secret_key_that_a_pod_asks_for_exists(environment: str) -> None:
    keys = collect_keys(environment)
    for workload in list_workloads(environment):
        for kind, name, key in list_references(workload):
            place = (kind, get_namespace(workload), name)
            assert place in keys, f"{describe(workload)} asks for {place}"
            assert key is None or key in keys[place], f"{describe(workload)}: {place} lacks {key}"


@each_environment
def test_no_secret_is_made_that_nothing_reads(environment: str) -> None:
    read = {
        (get_namespace(workload), name)
        for workload in list_workloads(environment)
        for kind, name, _ in list_references(workload)
        if kind == "Secret"
    }
    clusters = find(environment, "Cluster")
    read |= {
        ("mhras", role["passwordSecret"]["name"])
        for cluster in clusters
        for role in cluster["spec"]["managed"]["roles"]
    }
    # Without the single server nothing in the cluster needs the superuser: the operator has its
    # own, and infra.cluster.databases reads the Secret for a managed server's administrator.
    made = {(get_namespace(one), one["metadata"]["name"]) for one in list_secrets(environment)}
    single = find(environment, "StatefulSet", "postgres")
    assert made - read == (set() if single else {("mhras", "postgres-secrets")})


@each_environment
def test_every_volume_mounted_is_declared_and_every_claim_exists(environment: str) -> None:
    claims = {one["metadata"]["name"] for one in find(environment, "PersistentVolumeClaim")}
    for workload in list_workloads(environment):
        pod = get_template(workload)["spec"]
        declared = {volume["name"] for volume in pod.get("volumes", [])}
        declared |= {
            one["metadata"]["name"] for one in workload["spec"].get("volumeClaimTemplates", [])
        }
        mounted = {
            mount["name"]
            for container in get_containers(workload)
            for mount in container.get("volumeMounts", [])
        }
        assert mounted == declared, describe(workload)
        for volume in pod.get("volumes", []):
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims


@each_environment
def test_every_service_finds_pods_and_a_port_they_have(environment: str) -> None:
    for service in find(environment, "Service"):
        matching = [
            workload
            for workload in list_workloads(environment)
            if get_namespace(workload) == get_namespace(service)
            and service["spec"]["selector"].items()
            <= get_template(workload)["metadata"]["labels"].items()
        ]
        assert len(matching) == 1, describe(service)
        ports = {
            port["name"]
            for container in get_containers(matching[0])
            for port in container.get("ports", [])
        }
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in ports, describe(service)


@each_environment
def test_every_ingress_leads_to_a_service_and_has_tls_for_each_host(environment: str) -> None:
    services = {
        (get_namespace(one), one["metadata"]["name"]): {p["name"] for p in one["spec"]["ports"]}
        for one in find(environment, "Service")
    }
    ingresses = find(environment, "Ingress")
    assert ingresses or find(environment, "HTTPRoute")
    for ingress in ingresses:
        covered = {host for tls in ingress["spec"]["tls"] for host in tls["hosts"]}
        for rule in ingress["spec"]["rules"]:
            assert rule["host"] in covered
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                place = (get_namespace(ingress), backend["name"])
                assert backend["port"]["name"] in services[place]


@each_environment
def test_every_service_account_role_and_autoscaled_target_exists(environment: str) -> None:
    accounts = {
        (get_namespace(one), one["metadata"]["name"]) for one in find(environment, "ServiceAccount")
    }
    used = {
        (get_namespace(workload), get_template(workload)["spec"]["serviceAccountName"])
        for workload in list_workloads(environment)
    }
    assert used == accounts
    roles = {describe(one) for kind in ("Role", "ClusterRole") for one in find(environment, kind)}
    for kind in ("RoleBinding", "ClusterRoleBinding"):
        for binding in find(environment, kind):
            reference = binding["roleRef"]
            namespace = get_namespace(binding) if reference["kind"] == "Role" else ""
            assert f"{reference['kind']} {namespace}/{reference['name']}" in roles
            for subject in binding["subjects"]:
                assert (subject["namespace"], subject["name"]) in accounts
    names = {describe(one) for one in render(environment)}
    for scaler in find(environment, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        assert f"{target['kind']} {get_namespace(scaler)}/{target['name']}" in names
        for workload in find(environment, target["kind"], target["name"]):
            assert "replicas" not in workload["spec"]
    for budget in find(environment, "PodDisruptionBudget"):
        assert find(environment, "Deployment", budget["spec"]["selector"]["matchLabels"]["app"])


@each_environment
def test_only_what_talks_to_the_api_server_holds_a_token_for_it(environment: str) -> None:
    with_token = {
        get_template(workload)["spec"]["serviceAccountName"]
        for workload in list_workloads(environment)
        if get_template(workload)["spec"]["automountServiceAccountToken"]
    }
    assert with_token == {"prefect-worker", "prometheus", "alloy", "kube-state-metrics"}


@each_environment
def test_prometheus_may_ask_kubelets_for_numbers_and_for_nothing_else(environment: str) -> None:
    """nodes/proxy would let it run commands in every pod of every node."""
    (role,) = find(environment, "ClusterRole", "mhras-prometheus")
    granted = {
        (one, verb) for rule in role["rules"] for one in rule["resources"] for verb in rule["verbs"]
    }
    assert granted == {
        *(("nodes", verb) for verb in ("get", "list", "watch")),
        ("nodes/metrics", "get"),
    }


@each_environment
def test_no_role_may_list_or_change_secrets(environment: str) -> None:
    for role in [*find(environment, "Role"), *find(environment, "ClusterRole")]:
        for rule in role["rules"]:
            assert "*" not in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]]
            if "secrets" in rule["resources"]:
                assert rule["verbs"] == ["get"]
                assert rule["resourceNames"] == ["mhras-secrets"]


def find_violations(workload: Manifest) -> list[str]:
    """What Pod Security's profile `restricted` would object to, and a writable root besides."""
    pod = get_template(workload)["spec"]
    found = [field for field in ("hostNetwork", "hostPID", "hostIPC") if pod.get(field)]
    allowed = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
    for volume in pod.get("volumes", []):
        if not (set(volume) - {"name"}) <= allowed:
            found.append(f"volume {volume['name']}")
    context = pod.get("securityContext", {})
    if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        found.append("seccomp")
    if not context.get("runAsNonRoot") or context.get("runAsUser", 0) == 0:
        found.append("root")
    for container in get_containers(workload):
        found += find_container_violations(container)
    return found


def find_container_violations(container: dict[str, Any]) -> list[str]:
    context, name = container.get("securityContext", {}), container["name"]
    checks = {
        "escalation": context.get("allowPrivilegeEscalation") is False,
        "capabilities": context.get("capabilities") == {"drop": ["ALL"]},
        "writable root": context.get("readOnlyRootFilesystem") is True,
        "privileged": not context.get("privileged"),
        "host port": not any(port.get("hostPort") for port in container.get("ports", [])),
        "limits": {"cpu", "memory"} <= set(container["resources"]["limits"])
        and {"cpu", "memory"} <= set(container["resources"]["requests"]),
    }
    return [f"{name}: {what}" for what, holds in checks.items() if not holds]


@each_environment
def test_every_pod_passes_pod_security_restricted(environment: str) -> None:
    enforced = {
        one["metadata"]["name"]: one["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        for one in find(environment, "Namespace")
    }
    assert enforced == {"mhras": "restricted", "monitoring": "restricted"} | {
        "node-exporter": "privileged"
    }
    for workload in list_workloads(environment):
        # The one pod that must see its host, in a namespace of its own.
        expected = ["volume host"] if get_namespace(workload) == "node-exporter" else []
        assert find_violations(workload) == expected, describe(workload)


@each_environment
def test_our_images_run_as_user_1000(environment: str) -> None:
    ours = [
        workload
        for workload in list_workloads(environment)
        if "mhras-" in get_containers(workload)[0]["image"]
    ]
    assert len(ours) == 9
    for workload in ours:
        assert get_template(workload)["spec"]["securityContext"]["runAsUser"] == 1000


@each_environment
def test_flow_runs_start_the_image_of_the_release(environment: str) -> None:
    images = {
        container["image"]
        for workload in list_workloads(environment)
        for container in get_containers(workload)
        if container["image"].split(":")[0].endswith("/mhras-flows")
    }
    assert images == {"your-registry.example.com/mhras-flows:v1.0.0"}


@each_environment
def test_the_quota_has_room_for_everything_at_once(environment: str) -> None:
    (scaler,) = find(environment, "HorizontalPodAutoscaler")
    requested = 0.0
    for workload in list_workloads(environment):
        if get_namespace(workload) != "mhras":
            continue
        count = workload["spec"].get("replicas", 1)
        if workload["metadata"]["name"] == "mhras-api":
            count = scaler["spec"]["maxReplicas"] + 1
        cpu = [read_cpu(c["resources"]["requests"]["cpu"]) for c in get_containers(workload)]
        requested += count * sum(cpu)
    (quota,) = find(environment, "ResourceQuota", "mhras-quota")
    assert requested < read_cpu(quota["spec"]["hard"]["requests.cpu"])


def read_cpu(quantity: str) -> float:
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)
