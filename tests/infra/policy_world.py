"""Evaluates NetworkPolicies as Kubernetes does, and Cilium's beside them.

Traffic between a node and its own pods is always allowed, so a kubelet's probes need no policy.
"""

from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from tests.infra.cluster_objects import (
    Manifest,
    find,
    get_app,
    get_namespace,
    get_template,
    list_workloads,
)

CNPG = "cnpg.io"
CLUSTER = "mhras-postgres"
API_SERVER, OBJECT_STORE, NEIGHBOUR = "10.96.0.1", "203.0.113.7", "10.1.2.3"
KUBELET, OUTSIDE_DATABASE = "10.250.0.4", "10.2.3.4"
NODE_LOCAL_DNS, DNS_SERVICE = "169.254.20.10", "10.96.0.10"
OURS = ("mhras", "monitoring", "node-exporter")


@dataclass(frozen=True)
class Place:
    """An end of a connection: a pod by namespace and labels, or an address outside.

    `entity` is what Cilium takes an address for.
    """

    name: str
    namespace: str | None
    labels: tuple[tuple[str, str], ...] = ()
    address: str = NEIGHBOUR
    entity: str | None = None


def make_pod(name: str, namespace: str, **labels: str) -> Place:
    return Place(name, namespace, tuple(sorted(labels.items())))


OUTSIDE = {
    "api-server": Place("api-server", None, address=API_SERVER, entity="kube-apiserver"),
    "kubelet": Place("kubelet", None, address=KUBELET, entity="remote-node"),
    "object-store": Place("object-store", None, address=OBJECT_STORE),
    "database-outside": Place("database-outside", None, address=OUTSIDE_DATABASE),
    "dns-of-node": Place("dns-of-node", None, address=NODE_LOCAL_DNS),
    "dns-service": Place("dns-service", None, address=DNS_SERVICE),
}


def list_places(deployment: str) -> dict[str, Place]:
    """Every pod of the deployment by its label app, those that operators make, and others'."""
    found: dict[str, Place] = {}
    for workload in list_workloads(deployment):
        labels = get_template(workload)["metadata"]["labels"]
        app = get_app(workload)
        found[app] = Place(app, get_namespace(workload), tuple(sorted(labels.items())))
    return found | list_operators_pods(deployment) | list_strangers()


def list_operators_pods(deployment: str) -> dict[str, Place]:
    """Pods as CloudNativePG and cert-manager label them (read from their sources)."""
    found = {
        f"acme-solver-{namespace}": make_pod(
            f"acme-solver-{namespace}", namespace, **{"acme.cert-manager.io/http01-solver": "true"}
        )
        for namespace in ("mhras", "monitoring")
        if find(deployment, "ClusterIssuer")
    }
    for cluster in find(deployment, "Cluster"):
        own = {f"{CNPG}/cluster": cluster["metadata"]["name"]}
        inherited = cluster["spec"]["inheritedMetadata"]["labels"]
        instance = own | {f"{CNPG}/podRole": "instance"} | inherited
        found["postgres"] = make_pod("postgres", "mhras", **instance)
        # Jobs' pods inherit nothing.
        for role in ("initdb", "join", "snapshot-recovery"):
            name = f"postgres-{role}"
            found[name] = make_pod(name, "mhras", **own, **{f"{CNPG}/jobRole": role})
    for pooler in find(deployment, "Pooler"):
        labels = pooler["spec"]["template"]["metadata"]["labels"] | {
            f"{CNPG}/cluster": pooler["spec"]["cluster"]["name"],
            f"{CNPG}/poolerName": pooler["metadata"]["name"],
            f"{CNPG}/podRole": "pooler",
        }
        found["postgres-pooler"] = make_pod("postgres-pooler", "mhras", **labels)
    return found


def list_strangers() -> dict[str, Place]:
    return {
        "ingress": Place("ingress", "ingress-nginx"),
        "gateway": Place("gateway", "envoy-gateway-system"),
        "operator": Place("operator", "cnpg-system"),
        "stranger": make_pod("stranger", "default", app="mhras-api"),
    }


def allows(
    policies: list[Manifest], source: Place, target: Place, port: int, protocol: str = "TCP"
) -> bool:
    """Return whether both ends allow the connection."""
    leaves = _is_allowed(policies, source, target, port, protocol, "Egress", "egress", "to")
    enters = _is_allowed(policies, target, source, port, protocol, "Ingress", "ingress", "from")
    return leaves and enters


def list_policies(deployment: str) -> list[Manifest]:
    return [*find(deployment, "NetworkPolicy"), *find(deployment, "CiliumNetworkPolicy")]


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
    mine = [one for one in policies if get_namespace(one) == here.namespace]
    by_entity = any(one["kind"] == "CiliumNetworkPolicy" for one in policies)
    binding = [
        one["spec"]
        for one in mine
        if one["kind"] == "NetworkPolicy"
        and kind in one["spec"]["policyTypes"]
        and _matches(one["spec"]["podSelector"], dict(here.labels))
    ]
    if not binding:
        return True
    if field == "egress" and _is_allowed_by_entity(mine, here, there, port, protocol):
        return True
    if by_entity and there.entity:
        # Cilium never matches its own nodes and the API server by address.
        return False
    return any(
        _covers_port(rule, port, protocol)
        and any(_is_peer(peer, there, here.namespace) for peer in rule.get(peers, [{}]))
        for spec in binding
        for rule in spec.get(field, [])
    )


def _is_allowed_by_entity(
    policies: list[Manifest], here: Place, there: Place, port: int, protocol: str
) -> bool:
    return any(
        there.entity in rule["toEntities"]
        and {"port": str(port), "protocol": protocol} in rule["toPorts"][0]["ports"]
        for one in policies
        if one["kind"] == "CiliumNetworkPolicy"
        and _matches(one["spec"]["endpointSelector"], dict(here.labels))
        for rule in one["spec"]["egress"]
    )


def _covers_port(rule: Manifest, port: int, protocol: str) -> bool:
    # No ports: all of them.
    return "ports" not in rule or any(
        one["port"] <= port <= one.get("endPort", one["port"]) and one["protocol"] == protocol
        for one in rule["ports"]
    )


def _is_peer(peer: Manifest, place: Place, namespace: str | None) -> bool:
    if "ipBlock" in peer:
        address = ip_address(place.address)
        inside = address in ip_network(peer["ipBlock"]["cidr"])
        kept_out = any(address in ip_network(one) for one in peer["ipBlock"].get("except", []))
        return inside and not kept_out
    if place.namespace is None:
        return not peer
    if "namespaceSelector" in peer:
        names = {"kubernetes.io/metadata.name": place.namespace}
        if not _matches(peer["namespaceSelector"], names):
            return False
    elif peer and place.namespace != namespace:
        return False
    return _matches(peer.get("podSelector", {}), dict(place.labels))


def _matches(selector: Manifest, labels: dict[str, str]) -> bool:
    assert set(selector) <= {"matchLabels", "matchExpressions"}, selector
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    return wanted and all(_holds(one, labels) for one in selector.get("matchExpressions", []))


def _holds(expression: Manifest, labels: dict[str, str]) -> bool:
    found = labels.get(expression["key"])
    values = expression.get("values", [])
    return {
        "Exists": found is not None,
        "DoesNotExist": found is None,
        "In": found in values,
        "NotIn": found not in values,
    }[expression["operator"]]
