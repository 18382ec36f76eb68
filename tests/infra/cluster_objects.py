"""The objects of the overlays as kubectl renders them, and ways to look at them."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.cluster.hosts import HOSTS, Environment, make_managed_hosts
from infra.cluster.registration import make_job_template
from infra.cluster.secrets import EXTERNAL, make_secrets

PROJECT = Path(__file__).parents[2]
K8S = PROJECT / "infra" / "k8s"
ENVIRONMENTS = ("development", "staging", "production")
#: Whole deployments by name: the overlays, and examples that are one.
FOLDERS = {name: K8S / "overlays" / name for name in ENVIRONMENTS} | {
    "managed": K8S / "examples" / "managed-postgres",
    "gateway": K8S / "examples" / "gateway-api",
    "cilium": K8S / "examples" / "cilium",
    "nodelocal": K8S / "examples" / "nodelocal-dns",
    "kind": K8S / "overlays" / "kind",
    "restore": K8S / "overlays" / "restore",
}
#: Those that differ from production by a network component only are looked at for that alone.
DEPLOYMENTS = (*ENVIRONMENTS, "managed", "gateway")
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob")
#: Of Kubernetes itself; every other group is an operator's.
BUILT_IN_GROUPS = {"", "apps", "autoscaling", "batch", "networking.k8s.io", "policy"}
BUILT_IN_GROUPS |= {"rbac.authorization.k8s.io", "scheduling.k8s.io"}
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nbm9uZQ==\n-----END CERTIFICATE-----\n"

Manifest = dict[str, Any]


def find_kustomize() -> list[str]:
    if shutil.which("kubectl"):
        return ["kubectl", "kustomize"]
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    assert not os.environ.get("CI"), "CI must have kubectl or kustomize"
    pytest.skip("neither kubectl nor kustomize is installed: nothing can be rendered")


@lru_cache
def render_text(folder: Path) -> str:
    rendered = subprocess.run(
        [*find_kustomize(), str(folder)], capture_output=True, text=True, check=False
    )
    assert rendered.returncode == 0, rendered.stderr
    assert "Warning" not in rendered.stderr, rendered.stderr
    return rendered.stdout


def render_folder(folder: Path) -> tuple[Manifest, ...]:
    return tuple(yaml.safe_load_all(render_text(folder)))


@lru_cache
def render(deployment: str) -> tuple[Manifest, ...]:
    return render_folder(FOLDERS[deployment])


@lru_cache
def list_secrets(deployment: str) -> tuple[Manifest, ...]:
    """What the cluster has beside the overlay: the Secrets of infra.cluster.secrets."""
    given = dict.fromkeys(EXTERNAL, "given") | {"BACKUP_RECIPIENTS": "given"}
    name = {"kind": "staging"}.get(deployment, deployment)
    environment = Environment(name if name in ENVIRONMENTS else "production")
    hosts = HOSTS[environment]
    if deployment == "managed":
        hosts = make_managed_hosts("db.example.com", CERTIFICATE)
    return tuple(make_secrets(environment, given, hosts))


def find_job(deployment: str, app: str) -> Manifest:
    """Return the Job of a release by its label: its name ends with the release."""
    (job,) = [one for one in find(deployment, "Job") if one["metadata"]["labels"].get("app") == app]
    return job


def make_flow_run(deployment: str) -> Manifest:
    """The Job of a flow run, as the worker would fill in the registered template."""
    (config,) = find(deployment, "ConfigMap", "mhras-flow-run")
    registration = find_job(deployment, "mhras-registration")
    env = {e["name"]: e.get("value") for e in get_containers(registration)[0]["env"]}
    template = make_job_template(
        yaml.safe_load(config["data"]["flow-run.yaml"]),
        env["FLOWS_IMAGE"],
        env.get("FLOW_RUN_DATA_CLAIM"),
        env.get("FLOW_RUN_POSTGRES_CA"),
    )
    variables = template["variables"]["properties"]
    job = template["job_configuration"]["job_manifest"]
    job["metadata"] = {"name": "flow-run", "namespace": "mhras", "labels": {"app": "x"}}
    job["spec"]["backoffLimit"] = 0
    job["spec"]["ttlSecondsAfterFinished"] = variables["finished_job_ttl"]["default"]
    container = job["spec"]["template"]["spec"]["containers"][0]
    container["args"] = ["prefect", "flow-run", "execute"]
    container["env"] = [
        {"name": name, "value": value} for name, value in variables["env"]["default"].items()
    ]
    container["image"] = variables["image"]["default"]
    container["imagePullPolicy"] = variables["image_pull_policy"]["default"]
    return job


def is_built_in(one: Manifest) -> bool:
    return str(one["apiVersion"]).rpartition("/")[0] in BUILT_IN_GROUPS


def find(deployment: str, kind: str, name: str | None = None) -> list[Manifest]:
    return [
        one
        for one in render(deployment)
        if one["kind"] == kind and name in (None, one["metadata"]["name"])
    ]


def list_workloads(deployment: str) -> list[Manifest]:
    found = [one for one in render(deployment) if one["kind"] in WORKLOADS]
    return found if deployment == "restore" else [*found, make_flow_run(deployment)]


def get_template(workload: Manifest) -> Manifest:
    spec = workload["spec"]
    return (spec["jobTemplate"]["spec"] if workload["kind"] == "CronJob" else spec)["template"]


def get_containers(workload: Manifest) -> list[Manifest]:
    """All containers, those that run to their end before the others included."""
    pod = get_template(workload)["spec"]
    return [*pod.get("initContainers", []), *pod["containers"]]


def get_main_container(workload: Manifest) -> Manifest:
    (container,) = get_template(workload)["spec"]["containers"]
    return container


def get_namespace(one: Manifest) -> str:
    return one["metadata"].get("namespace", "")


def get_app(workload: Manifest) -> str:
    return get_template(workload)["metadata"]["labels"]["app"]


def describe(one: Manifest) -> str:
    return f"{one['kind']} {get_namespace(one)}/{one['metadata']['name']}"


def resolve_environment(deployment: str, workload: Manifest) -> dict[str, str]:
    """Return the variables of a workload's main container, with the values of its references."""
    values = {
        (one["kind"], get_namespace(one), one["metadata"]["name"]): one.get("data", {})
        | one.get("stringData", {})
        for one in [*find(deployment, "ConfigMap"), *list_secrets(deployment)]
    }
    place, found = get_namespace(workload), {}
    container = get_main_container(workload)
    for source in container.get("envFrom", []):
        for kind, field in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
            if field in source:
                found |= values[kind, place, source[field]["name"]]
    for one in container.get("env", []):
        found[one["name"]] = one.get("value", "")
        for kind, field in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
            reference = one.get("valueFrom", {}).get(field, {})
            if reference and not reference.get("optional"):
                found[one["name"]] = values[kind, place, reference["name"]][reference["key"]]
    return found


def walk(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, dict):
        for one in value.values():
            yield from walk(one)
    elif isinstance(value, list):
        for one in value:
            yield from walk(one)
