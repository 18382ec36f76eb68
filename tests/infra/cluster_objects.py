"""The objects of the overlays as kubectl renders them, and ways to look at them."""

import shutil
import subprocess
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.cluster.registration import make_job_template
from infra.cluster.secrets import EXTERNAL, HOSTS, Environment, make_secrets

PROJECT = Path(__file__).parents[2]
OVERLAYS = PROJECT / "infra" / "k8s" / "overlays"
ENVIRONMENTS = ("development", "staging", "production")
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob")

Manifest = dict[str, Any]


def find_kustomize() -> list[str]:
    if shutil.which("kubectl"):
        return ["kubectl", "kustomize"]
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    pytest.skip("neither kubectl nor kustomize is installed: nothing can be rendered")


@lru_cache
def render_text(folder: Path) -> str:
    rendered = subprocess.run(
        [*find_kustomize(), str(folder)], capture_output=True, text=True, check=False
    )
    assert rendered.returncode == 0, rendered.stderr
    assert "Warning" not in rendered.stderr, rendered.stderr
    return rendered.stdout


@lru_cache
def render(environment: str) -> tuple[Manifest, ...]:
    return tuple(yaml.safe_load_all(render_text(OVERLAYS / environment)))


@lru_cache
def list_secrets(environment: str) -> tuple[Manifest, ...]:
    """What the cluster has beside the overlay: the Secrets of infra.cluster.secrets."""
    given = dict.fromkeys(EXTERNAL, "given")
    name = Environment(environment)
    return tuple(make_secrets(name, given, HOSTS[name]))


def make_flow_run(environment: str) -> Manifest:
    """The Job of a flow run, as the worker would fill in the registered template."""
    (config,) = find(environment, "ConfigMap", "mhras-flow-run")
    (registration,) = find(environment, "Job", "mhras-registration")
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


def find(environment: str, kind: str, name: str | None = None) -> list[Manifest]:
    return [
        one
        for one in render(environment)
        if one["kind"] == kind and name in (None, one["metadata"]["name"])
    ]


def list_workloads(environment: str) -> list[Manifest]:
    found = [one for one in render(environment) if one["kind"] in WORKLOADS]
    return [*found, make_flow_run(environment)]


def get_template(workload: Manifest) -> Manifest:
    spec = workload["spec"]
    return (spec["jobTemplate"]["spec"] if workload["kind"] == "CronJob" else spec)["template"]


def get_containers(workload: Manifest) -> list[Manifest]:
    pod = get_template(workload)["spec"]
    return [*pod.get("initContainers", []), *pod["containers"]]


def get_namespace(one: Manifest) -> str:
    return one["metadata"].get("namespace", "")


def describe(one: Manifest) -> str:
    return f"{one['kind']} {get_namespace(one)}/{one['metadata']['name']}"


def walk(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, dict):
        for one in value.values():
            yield from walk(one)
    elif isinstance(value, list):
        for one in value:
            yield from walk(one)
