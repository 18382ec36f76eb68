"""Examples and alternatives: the gateway, Filebeat, a migration's way back, a vault."""

import pytest
import yaml

from tests.infra.cluster_objects import (
    DEPLOYMENTS,
    PROJECT,
    Manifest,
    describe,
    find,
    get_main_container,
    get_namespace,
    list_secrets,
    render_folder,
)
from tests.infra.policy_world import OUTSIDE, allows, make_pod

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


def list_route_backends(deployment: str) -> list[tuple[str, str, int]]:
    return [
        (get_namespace(route), backend["name"], backend["port"])
        for route in find(deployment, "HTTPRoute")
        for rule in route["spec"]["rules"]
        for backend in rule.get("backendRefs", [])
    ]


def test_every_route_of_the_gateway_leads_to_a_service_and_comes_from_a_listener() -> None:
    services = {
        (get_namespace(one), one["metadata"]["name"], port["port"])
        for one in find("gateway", "Service")
        for port in one["spec"]["ports"]
    }
    (gateway,) = find("gateway", "Gateway")
    listeners = {one["name"]: one for one in gateway["spec"]["listeners"]}
    reached = set()
    assert set(list_route_backends("gateway")) <= services
    for route in find("gateway", "HTTPRoute"):
        for parent in route["spec"]["parentRefs"]:
            listener = listeners[parent["sectionName"]]
            reached.add(parent["sectionName"])
            names = route["spec"].get("hostnames", [])
            assert not names or listener["hostname"] in names
            assert may_attach(listener, get_namespace(route), get_namespace(gateway))
    assert reached == set(listeners)


def may_attach(listener: Manifest, namespace: str, own: str) -> bool:
    allowed = listener["allowedRoutes"]["namespaces"]
    if allowed["from"] == "Same":
        return namespace == own
    selector = allowed["selector"]
    named = set(selector.get("matchLabels", {}).values())
    for one in selector.get("matchExpressions", []):
        named |= set(one["values"])
    return namespace in named


def test_the_gateway_leads_to_all_that_the_ingresses_lead_to() -> None:
    """The same host names, and :80 for Let's Encrypt and a redirect."""
    hosts = {rule["host"] for one in find("production", "Ingress") for rule in one["spec"]["rules"]}
    (gateway,) = find("gateway", "Gateway")
    listeners = gateway["spec"]["listeners"]
    assert {one["hostname"] for one in listeners if "hostname" in one} == hosts
    assert [one["port"] for one in listeners if one["protocol"] == "HTTP"] == [80]
    (issuer,) = find("gateway", "ClusterIssuer")
    (solver,) = issuer["spec"]["acme"]["solvers"]
    assert solver["http01"]["gatewayHTTPRoute"]["parentRefs"][0]["sectionName"] == "http"
    assert not find("gateway", "Ingress")


def test_a_limit_that_needs_a_redis_is_asked_for_by_name() -> None:
    """A global limit is not accepted before Envoy Gateway knows a Redis."""
    component = PROJECT / "infra/k8s/components/gateway-api"
    assert "BackendTrafficPolicy" not in "".join(p.read_text() for p in component.glob("*.yaml"))
    limit = PROJECT / "infra/k8s/components/gateway-rate-limit"
    assert "Redis" in (limit / "kustomization.yaml").read_text()


def test_filebeat_s_host_paths_are_let_in_where_it_is_installed_and_nowhere_else() -> None:
    objects = render_folder(PROJECT / "infra/k8s/examples/filebeat")
    (namespace,) = [one for one in objects if one["kind"] == "Namespace"]
    level = namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    assert (namespace["metadata"]["name"], level) == ("filebeat", "privileged")
    text = (PROJECT / "monitoring/logging/filebeat-config.yaml").read_text()
    assert "helm install filebeat elastic/filebeat -n filebeat " in text
    filebeat = make_pod("filebeat", "filebeat", app="filebeat-filebeat")
    elasticsearch = make_pod("elasticsearch", "monitoring", app="elasticsearch-master")
    policies = [*objects, *find("production", "NetworkPolicy")]
    policies = [one for one in policies if one["kind"] == "NetworkPolicy"]
    assert allows(policies, filebeat, elasticsearch, 9200)
    assert allows(policies, filebeat, OUTSIDE["api-server"], 6443)
    assert not allows(policies, filebeat, make_pod("api", "mhras", app="mhras-api"), 8000)


def test_the_way_back_of_a_migration_is_a_job_of_the_release_s_image() -> None:
    objects = render_folder(PROJECT / "infra/k8s/examples/migration-down")
    (job,) = [one for one in objects if one["kind"] == "Job"]
    assert job["metadata"]["name"] == "mhras-migration-down"
    assert get_main_container(job)["command"][-2] == "--down"
    assert get_main_container(job)["image"].endswith("/mhras-api:v1.0.0")


def test_the_example_for_a_vault_names_every_secret_and_no_other() -> None:
    text = (PROJECT / "infra/k8s/examples/external-secrets.yaml").read_text()
    named = {
        describe(one).partition(" ")[2]
        for one in yaml.safe_load_all(text)
        if one["kind"] == "ExternalSecret"
    }
    assert named == {describe(one).partition(" ")[2] for one in list_secrets("production")}
