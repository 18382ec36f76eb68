"""Rules over the rendered objects that no schema knows: what would start, stay up and come back."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from infra.cluster.release import set_release
from tests.infra.cluster_objects import (
    DEPLOYMENTS,
    FOLDERS,
    K8S,
    Manifest,
    describe,
    find,
    find_job,
    get_app,
    get_containers,
    get_main_container,
    get_namespace,
    get_template,
    list_workloads,
    render,
    render_folder,
)

each_deployment = pytest.mark.parametrize("deployment", DEPLOYMENTS)
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
#: Beside the emptyDirs, a container's log and its own layer count.
ROOM_FOR_LOGS = 64 * 2**20


def read_bytes(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([KMGT]i)?", quantity).groups()
    return int(number) * UNITS.get(unit, 1)


def get_default_limits(deployment: str, namespace: str) -> dict[str, str]:
    """What the namespace's LimitRange gives a container that says nothing."""
    for one in find(deployment, "LimitRange"):
        if get_namespace(one) == namespace:
            return one["spec"]["limits"][0]["default"]
    return {}


@each_deployment
def test_no_pod_is_evicted_for_what_its_own_volumes_may_hold(deployment: str) -> None:
    """The kubelet counts emptyDirs against the sum of the containers' ephemeral limits."""
    for workload in list_workloads(deployment):
        pod = get_template(workload)["spec"]
        default = get_default_limits(deployment, get_namespace(workload))
        limits = [
            (default | one["resources"]["limits"]).get("ephemeral-storage")
            for one in pod["containers"]
        ]
        volumes = [one["emptyDir"] for one in pod.get("volumes", []) if "emptyDir" in one]
        held = sum(read_bytes(one["sizeLimit"]) for one in volumes)
        if None not in limits:
            allowed = sum(map(read_bytes, limits))
            assert allowed >= held + ROOM_FOR_LOGS, describe(workload)


@each_deployment
def test_no_spread_makes_a_drained_node_a_place_that_must_be_filled(deployment: str) -> None:
    for workload in list_workloads(deployment):
        for one in get_template(workload)["spec"].get("topologySpreadConstraints", []):
            hard = one["whenUnsatisfiable"] == "DoNotSchedule"
            assert not hard or one.get("nodeTaintsPolicy") == "Honor", describe(workload)


@each_deployment
@pytest.mark.parametrize("app", ["mlflow", "prefect-server"])
def test_what_must_be_alone_is_stopped_before_its_successor_starts(
    deployment: str, app: str
) -> None:
    (workload,) = find(deployment, "Deployment", app)
    assert workload["spec"]["replicas"] == 1
    assert workload["spec"]["strategy"] == {"type": "Recreate"}


@each_deployment
def test_every_pod_has_a_priority_that_exists_and_flows_make_way_first(deployment: str) -> None:
    known = {one["metadata"]["name"]: one for one in find(deployment, "PriorityClass")}
    given = {
        get_app(workload): known[get_template(workload)["spec"]["priorityClassName"]]
        for workload in list_workloads(deployment)
    }
    for cluster in find(deployment, "Cluster"):
        given["postgres"] = known[cluster["spec"]["priorityClassName"]]
    for pooler in find(deployment, "Pooler"):
        given["pooler"] = known[pooler["spec"]["template"]["spec"]["priorityClassName"]]
    values = {app: one["value"] for app, one in given.items()}
    assert min(values, key=lambda app: values[app]) == "mhras-flow-run"
    assert values["mhras-api"] == max(values.values())
    assert given["mhras-flow-run"]["preemptionPolicy"] == "Never"
    assert max(values.values()) <= 1_000_000_000  # above it are Kubernetes' own


@each_deployment
def test_no_service_is_made_that_a_quota_refuses(deployment: str) -> None:
    """cert-manager's solver makes one for each certificate, by default of type NodePort."""
    refused = {
        get_namespace(one)
        for one in find(deployment, "ResourceQuota")
        if one["spec"]["hard"].get("services.nodeports") == "0"
    }
    assert refused >= {"mhras", "monitoring"}
    for service in find(deployment, "Service"):
        assert service["spec"].get("type", "ClusterIP") == "ClusterIP"
    for issuer in find(deployment, "ClusterIssuer"):
        for solver in issuer["spec"]["acme"]["solvers"]:
            (kind,) = solver["http01"].values()
            assert kind["serviceType"] == "ClusterIP"


# Connections of PostgreSQL.

#: What each client beside the poolers may open: pools of its program, one process each.
DIRECT = {
    "mhras-flow-run": 4 * 20,  # four runs at once, each with the application's pool at most
    "prefect-server": 30,
    "mlflow": 20 + 20,  # registry and logins
    "mhras-registration": 5,
    "mhras-migration": 2,
    "mhras-backup": 5,
    "postgres-exporter": 5,
    "operator and replication": 15,
}
RESERVED = 3


@each_deployment
def test_pools_and_clients_stay_below_what_postgresql_takes(deployment: str) -> None:
    clusters = find(deployment, "Cluster")
    if not clusters:
        return
    parameters = clusters[0]["spec"]["postgresql"]["parameters"]
    (pooler,) = find(deployment, "Pooler")
    pooled = pooler["spec"]["instances"] * int(
        pooler["spec"]["pgbouncer"]["parameters"]["default_pool_size"]
    )
    assert pooled + sum(DIRECT.values()) + RESERVED <= int(parameters["max_connections"])


@each_deployment
def test_one_pooler_takes_what_all_pods_of_the_api_may_open(deployment: str) -> None:
    (scaler,) = find(deployment, "HorizontalPodAutoscaler")
    (api,) = find(deployment, "Deployment", "mhras-api")
    arguments = get_main_container(api)["args"]
    workers = int(arguments[arguments.index("--workers") + 1])
    wanted = scaler["spec"]["maxReplicas"] * workers * 38  # runbook: scale
    for pooler in find(deployment, "Pooler"):
        assert int(pooler["spec"]["pgbouncer"]["parameters"]["max_client_conn"]) >= wanted


def test_postgresql_refuses_plaintext_before_the_operator_s_last_rule_takes_it() -> None:
    (cluster,) = find("production", "Cluster")
    rules = [rule.split() for rule in cluster["spec"]["postgresql"]["pg_hba"]]
    assert rules[0] == ["hostnossl", "all", "all", "all", "reject"]
    (pooler,) = find("production", "Pooler")
    assert pooler["spec"]["pgbouncer"]["parameters"]["client_tls_sslmode"] == "require"


def test_slow_statements_are_counted_in_every_database() -> None:
    script = (K8S / "base" / "postgres" / "10-databases.sh").read_text()
    assert "for database in postgres mhras mlflow prefect feast" in script
    (cluster,) = find("production", "Cluster")
    bootstrap = cluster["spec"]["bootstrap"]["initdb"]
    for statements in (bootstrap["postInitSQL"], bootstrap["postInitApplicationSQL"]):
        assert "pg_stat_statements" in statements[0]
    for database in find("production", "Database"):
        assert {"name": "pg_stat_statements"} in database["spec"]["extensions"]


# Upgrades.


@each_deployment
def test_the_api_waits_for_the_revision_of_its_own_release(deployment: str) -> None:
    (api,) = find(deployment, "Deployment", "mhras-api")
    (waiting,) = get_template(api)["spec"]["initContainers"]
    assert waiting["command"] == ["python", "-m", "serving.database.migrate", "--wait"]
    assert waiting["image"] == get_main_container(api)["image"]
    (url,) = [one for one in waiting["env"] if one["name"] == "DATABASE_URL"]
    assert url["valueFrom"]["secretKeyRef"]["key"] == "app_database_url"
    settings = {one["name"] for one in waiting["env"]}
    main = {one["name"] for one in get_main_container(api)["env"]}
    assert ("PGSSLROOTCERT" in settings) == ("PGSSLROOTCERT" in main)


#: What the API server refuses to change, by kind.
IMMUTABLE = {
    "Job": ("selector", "template", "completionMode"),
    "Deployment": ("selector",),
    "DaemonSet": ("selector",),
    "StatefulSet": ("selector", "serviceName", "podManagementPolicy", "volumeClaimTemplates"),
    "PersistentVolumeClaim": ("accessModes", "storageClassName", "volumeName"),
    "Service": ("clusterIP",),
}


def get_immutable(one: Manifest) -> Manifest:
    if one["kind"] in ("RoleBinding", "ClusterRoleBinding"):
        return {"roleRef": one["roleRef"]}
    if one["kind"] == "PriorityClass":
        return {"value": one["value"], "preemptionPolicy": one.get("preemptionPolicy")}
    fields = IMMUTABLE.get(one["kind"], ())
    return {field: one["spec"].get(field) for field in fields}


@each_deployment
def test_the_next_release_changes_nothing_that_cannot_be_changed(
    deployment: str, tmp_path: Path
) -> None:
    shutil.copytree(K8S.parents[1] / "monitoring", tmp_path / "monitoring")
    shutil.copytree(K8S, tmp_path / "infra" / "k8s")
    set_release(tmp_path / "infra" / "k8s" / "components" / "release", "v9.9.9")
    folder = tmp_path / "infra" / "k8s" / FOLDERS[deployment].relative_to(K8S)
    before = {describe(one): one for one in render(deployment)}
    after = {describe(one): one for one in render_folder(folder)}

    for name in before.keys() & after.keys():
        assert get_immutable(before[name]) == get_immutable(after[name]), name
    gone = before.keys() - after.keys()
    assert gone == {
        "Job mhras/mhras-migration-v1-0-0",
        "Job mhras/mhras-registration-v1-0-0",
    }
    images = {
        container["image"]
        for one in after.values()
        if one["kind"] == "Deployment"
        for container in get_containers(one)
        if "/mhras-" in container["image"]
    }
    assert {image.rpartition(":")[2] for image in images} == {"v9.9.9"}


@each_deployment
def test_jobs_of_a_release_are_cleared_away_and_carry_its_name(deployment: str) -> None:
    (release,) = find(deployment, "ConfigMap", "mhras-release")
    for app in ("mhras-migration", "mhras-registration"):
        job = find_job(deployment, app)
        assert job["metadata"]["name"] == f"{app}-{release['data']['suffix']}"
        assert job["spec"]["ttlSecondsAfterFinished"] > 0


# Least privilege.

#: Who may read which key of the object store.
STORAGE_KEYS = {
    "model_storage_key": {"mlflow"},
    "audit_storage_key": {"mhras-api", "audit-verify"},
    "storage_key": {"mhras-backup"},
}


@each_deployment
def test_each_key_of_the_object_store_reaches_only_what_uses_it(deployment: str) -> None:
    holders: dict[str, set[str]] = {}
    for workload in list_workloads(deployment):
        for container in get_containers(workload):
            for one in container.get("env", []):
                reference = one.get("valueFrom", {}).get("secretKeyRef")
                if reference and reference["key"] in STORAGE_KEYS:
                    holders.setdefault(reference["key"], set()).add(get_app(workload))
    assert holders == STORAGE_KEYS


@pytest.mark.parametrize("deployment", [*DEPLOYMENTS, "restore"])
def test_a_store_that_is_not_aws_is_found_by_every_pod_with_a_key_for_it(deployment: str) -> None:
    """One line of the ConfigMap, AWS_ENDPOINT_URL, is enough."""
    for workload in list_workloads(deployment):
        container = get_main_container(workload)
        named = {one["name"] for one in container.get("env", [])}
        sources = [one.get("configMapRef", {}).get("name") for one in container.get("envFrom", [])]
        if "AWS_ACCESS_KEY_ID" in named:
            assert "AWS_ENDPOINT_URL" in named or "mhras-config" in sources, describe(workload)


@each_deployment
def test_no_pod_of_the_api_holds_an_administrator_s_password(deployment: str) -> None:
    (api,) = find(deployment, "Deployment", "mhras-api")
    references = {
        (one["valueFrom"]["secretKeyRef"]["name"], one["valueFrom"]["secretKeyRef"]["key"])
        for container in get_containers(api)
        for one in container.get("env", [])
        if "secretKeyRef" in one.get("valueFrom", {})
    }
    assert {name for name, _ in references} == {"mhras-secrets"}
    assert not [key for _, key in references if "admin" in key or key == "database_url"]


def test_the_release_component_is_the_only_place_that_names_our_images() -> None:
    for path in K8S.rglob("*.yaml"):
        if path.parent.name == "release":
            continue
        for document in yaml.safe_load_all(path.read_text()):
            for image in (document or {}).get("images", []) if isinstance(document, dict) else []:
                assert not image["name"].startswith("mhras-") or path.parent.name == "kind", path
