"""Who may reach whom: each connection that is needed is allowed, and every other refused."""

from dataclasses import dataclass
from ipaddress import ip_address, ip_network

import pytest

from tests.infra.cluster_objects import (
    ENVIRONMENTS,
    Manifest,
    find,
    get_namespace,
    get_template,
    list_workloads,
    render,
)

API_SERVER, OBJECT_STORE, NEIGHBOUR = "10.96.0.1", "203.0.113.7", "10.1.2.3"
POSTGRES = {"mhras-migration", "prefect-server", "mhras-flow-run", "mhras-registration"}
POSTGRES |= {"mlflow", "mhras-backup", "mhras-api", "postgres-exporter"}

#: (from, to, port): everything that must work, in every environment.
NEEDED = {
    *((client, "postgres", 5432) for client in POSTGRES),
    ("ingress", "mhras-api", 8000),
    ("ingress", "grafana", 3000),
    ("mhras-api", "mlflow", 5000),
    ("mhras-flow-run", "mlflow", 5000),
    ("mhras-registration", "mlflow", 5000),
    ("blackbox-exporter", "mlflow", 5000),
    ("prefect-worker", "prefect-server", 4200),
    ("mhras-flow-run", "prefect-server", 4200),
    ("mhras-registration", "prefect-server", 4200),
    ("blackbox-exporter", "prefect-server", 4200),
    ("prometheus", "mhras-api", 8000),
    ("prometheus", "node-exporter", 9100),
    ("prometheus", "postgres-exporter", 9187),
    ("prometheus", "kube-state-metrics", 8080),
    ("prometheus", "blackbox-exporter", 9115),
    ("prometheus", "alertmanager", 9093),
    ("grafana", "prometheus", 9090),
    ("grafana", "loki", 3100),
    ("alloy", "loki", 3100),
}
#: What CloudNativePG's instances, pooler and operator need beside that.
NEEDED_IN_PRODUCTION = {
    ("mhras-api", "postgres-pooler", 5432),
    ("postgres-pooler", "postgres", 5432),
    ("postgres", "postgres", 5432),
    ("postgres", "postgres", 8000),
    ("operator", "postgres", 5432),
    ("operator", "postgres", 8000),
}
#: Ports on which anything at all listens.
PORTS = sorted({port for _, _, port in NEEDED | NEEDED_IN_PRODUCTION} | {22, 443, 12345, 8081})
TO_OBJECT_STORE = {"mhras-api", "mhras-flow-run", "mlflow", "mhras-backup", "alertmanager"}
TO_API_SERVER = {"prefect-worker", "prometheus", "alloy", "kube-state-metrics"}


@dataclass(frozen=True)
class Place:
    """An end of a connection: a pod by namespace and labels, or an address outside."""

    name: str
    namespace: str | None
    labels: tuple[tuple[str, str], ...] = ()
    address: str = NEIGHBOUR


def list_places(environment: str) -> dict[str, Place]:
    """Every pod of the overlay by its label app, and those of others that matter."""
    found: dict[str, Place] = {}
    for workload in list_workloads(environment):
        labels = get_template(workload)["metadata"]["labels"]
        found[labels["app"]] = Place(
            labels["app"], get_namespace(workload), tuple(sorted(labels.items()))
        )
    for cluster in find(environment, "Cluster"):
        labels = cluster["spec"]["inheritedMetadata"]["labels"]
        found["postgres"] = Place("postgres", "mhras", tuple(sorted(labels.items())))
    for pooler in find(environment, "Pooler"):
        labels = pooler["spec"]["template"]["metadata"]["labels"]
        found["postgres-pooler"] = Place("postgres-pooler", "mhras", tuple(sorted(labels.items())))
    found["ingress"] = Place("ingress", "ingress-nginx")
    found["operator"] = Place("operator", "cnpg-system")
    found["stranger"] = Place("stranger", "default", (("app", "mhras-api"),))
    return found


def allows(
    environment: str, source: Place, target: Place, port: int, protocol: str = "TCP"
) -> bool:
    """Evaluate the policies as Kubernetes does: both ends must allow the connection."""
    policies = find(environment, "NetworkPolicy")
    leaves = _is_allowed(policies, source, target, port, protocol, "Egress", "egress", "to")
    enters = _is_allowed(policies, target, source, port, protocol, "Ingress", "ingress", "from")
    return leaves and enters


def _is_allowed(
    policies: list[Manifest],
    here: Place,
    there: Place,
    port: int,
    protocol: str,
    kind: str,
    field: str,
    peers: str,
) -> bool:
    binding = [
        policy["spec"]
        for policy in policies
        if get_namespace(policy) == here.namespace
        and kind in policy["spec"]["policyTypes"]
        and _matches(policy["spec"]["podSelector"], dict(here.labels))
    ]
    if not binding:
        return True
    return any(
        _covers_port(rule, port, protocol)
        and any(_is_peer(peer, there, here.namespace) for peer in rule[peers])
        for spec in binding
        for rule in spec.get(field, [])
    )


def _covers_port(rule: Manifest, port: int, protocol: str) -> bool:
    return any(one["port"] == port and one["protocol"] == protocol for one in rule["ports"])


def _is_peer(peer: Manifest, place: Place, namespace: str | None) -> bool:
    if "ipBlock" in peer:
        address = ip_address(place.address)
        inside = address in ip_network(peer["ipBlock"]["cidr"])
        kept_out = any(address in ip_network(one) for one in peer["ipBlock"].get("except", []))
        return inside and not kept_out
    if place.namespace is None:
        return False
    if "namespaceSelector" in peer:
        names = {"kubernetes.io/metadata.name": place.namespace}
        if not _matches(peer["namespaceSelector"], names):
            return False
    elif place.namespace != namespace:
        return False
    return _matches(peer.get("podSelector", {}), dict(place.labels))


def _matches(selector: Manifest, labels: dict[str, str]) -> bool:
    assert set(selector) <= {"matchLabels"}, "the evaluator knows matchLabels only"
    return selector.get("matchLabels", {}).items() <= labels.items()


def list_needed(environment: str) -> set[tuple[str, str, int]]:
    return NEEDED | (NEEDED_IN_PRODUCTION if environment == "production" else set())


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_exactly_the_needed_connections_are_allowed(environment: str) -> None:
    places = list_places(environment)
    governed = {
        name for name, one in places.items() if name not in ("ingress", "operator", "stranger")
    }
    allowed = {
        (source, target, port)
        for source in places
        for target in governed
        for port in PORTS
        if allows(environment, places[source], places[target], port)
    }
    assert allowed == list_needed(environment)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_only_some_reach_the_object_store_and_the_api_server(environment: str) -> None:
    places = list_places(environment)
    store, server = Place("", None, address=OBJECT_STORE), Place("", None, address=API_SERVER)
    ours = {name: one for name, one in places.items() if one.namespace in ("mhras", "monitoring")}

    to_store = {name for name, one in ours.items() if allows(environment, one, store, 443)}
    to_server = {name for name, one in ours.items() if allows(environment, one, server, 6443)}

    talking = TO_API_SERVER | (
        {"postgres", "postgres-pooler"} if environment == "production" else set()
    )
    assert to_server == talking
    assert to_store == TO_OBJECT_STORE | talking
    assert not any(allows(environment, one, store, 80) for one in ours.values())


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("protocol", ["UDP", "TCP"])
def test_every_pod_may_look_names_up_and_only_at_the_cluster_s_server(
    environment: str, protocol: str
) -> None:
    dns = Place("dns", "kube-system", (("k8s-app", "kube-dns"),))
    elsewhere = Place("", None, address="203.0.113.53")
    for name, one in list_places(environment).items():
        if one.namespace in ("mhras", "monitoring", "node-exporter"):
            assert allows(environment, one, dns, 53, protocol), name
            assert not allows(environment, one, elsewhere, 53, protocol), name


def test_every_namespace_of_ours_denies_by_default() -> None:
    for environment in ENVIRONMENTS:
        denied = {
            get_namespace(one)
            for one in render(environment)
            if one["kind"] == "NetworkPolicy"
            and one["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
        }
        assert denied == {one["metadata"]["name"] for one in find(environment, "Namespace")}
