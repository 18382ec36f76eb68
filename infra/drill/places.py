"""Where a drill restores to, all on this machine: a PostgreSQL server and folders of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy import make_url

from infra.cluster.escrow import Secret, get_value
from infra.local.ports import choose_port
from infra.local.postgres import PostgresServer
from infra.local.secrets import read_env_file

K8S = Path(__file__).resolve().parents[1] / "k8s" / "base"
#: What a tree of a backup is called, and the folder it is restored to below the drill's store.
TREES = {"models": "models", "lake": "lake", "checkpoints": "audit"}


@dataclass(frozen=True)
class Places:
    """The drill's own places; `store` is a folder or an s3:// prefix."""

    state: Path
    postgres: PostgresServer
    store: str
    mlflow_port: int
    api_port: int

    @property
    def mlflow_url(self) -> str:
        return f"http://127.0.0.1:{self.mlflow_port}"

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    def locate(self, tree: str) -> str:
        return f"{self.store.rstrip('/')}/{TREES[tree]}"

    def move_url(self, url: str) -> str:
        """Return a database's URL as it is here: the same login at the drill's server."""
        moved = make_url(url).set(host="127.0.0.1", port=self.postgres.port, query={})
        return moved.render_as_string(hide_password=False)


def choose_ports() -> tuple[int, int]:
    mlflow = choose_port(15050)
    return mlflow, choose_port(18050, frozenset([mlflow]))


def read_workload(name: str, kind: str, container: str) -> dict[str, Any]:
    """Return a container of a workload's manifest: the drill starts what a cluster would.

    Raises LookupError where it has none of that name.
    """
    for document in yaml.safe_load_all((K8S / name).read_text()):
        if document["kind"] == kind:
            containers = document["spec"]["template"]["spec"]["containers"]
            return next(spec for spec in containers if spec["name"] == container)
    raise LookupError(f"{name} has no {kind}")


def make_environment(
    container: Mapping[str, Any], secrets: Sequence[Secret], changes: Mapping[str, str]
) -> dict[str, str]:
    """Return a container's variables, its Secrets' values filled in and `changes` laid over."""
    variables: dict[str, str] = {}
    for source in container.get("envFrom", []):
        if name := source.get("configMapRef", {}).get("name"):
            variables |= read_env_file(K8S / "config" / f"{name.removesuffix('-config')}.env")
        if name := source.get("secretRef", {}).get("name"):
            variables |= _get_values(secrets, name)
    for variable in container.get("env", []):
        reference = variable.get("valueFrom", {})
        if secret := reference.get("secretKeyRef"):
            variables[variable["name"]] = get_value(secrets, secret["name"], secret["key"])
        elif "value" in variable:
            variables[variable["name"]] = variable["value"]
    return variables | dict(changes)


def _get_values(secrets: Sequence[Secret], name: str) -> dict[str, str]:
    (values,) = [secret["stringData"] for secret in secrets if secret["metadata"]["name"] == name]
    return dict(values)
