"""Settings of the servers of a cluster: ``python -m infra.cluster.registration``.

Prefect: the work pool whose runs become Kubernetes Jobs, and every deployment of prefect.yaml.
MLflow: the login with which the API reads. PostgreSQL: that the API may read the feature store.
Safe to run again, at every upgrade.
"""

import copy
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import httpx
import psycopg2
import typer
import yaml
from psycopg2 import sql

from infra.local.processes import answers
from mlruns_config.manifest import MEMBER_MODELS, RELEASE_MODEL
from mlruns_config.reviewers import LoginError, add_reviewer, let_promote

PROJECT = Path(__file__).resolve().parents[2]
WORK_POOL = "kubernetes"
PATIENCE_SECONDS = 600
#: A finished run's Job is kept for a day, for its log; Prefect keeps the log itself.
JOB_TTL_SECONDS = 86_400
CA_FILE = "/etc/postgres-ca/ca.crt"

Manifest = dict[str, Any]


class RegistrationError(RuntimeError):
    """A server refused or never answered; the message names it."""


def make_job_template(
    flow_run: Manifest, image: str, data_claim: str | None = None, ca_secret: str | None = None
) -> Manifest:
    """Return the base job template of the work pool: Prefect's own with `flow_run` laid over it.

    `data_claim` is a volume for /data, `ca_secret` holds PostgreSQL's ca.crt.
    """
    # Here, not at the top: the Kubernetes client takes seconds to import.
    from prefect_kubernetes import KubernetesWorker

    template: Manifest = copy.deepcopy(KubernetesWorker.get_default_base_job_template())
    job = template["job_configuration"]["job_manifest"]
    pod, ours = job["spec"]["template"], copy.deepcopy(flow_run["spec"]["template"])
    container = pod["spec"]["containers"][0] | ours["spec"].pop("containers")[0]
    # Prefect puts both where only a Job has them.
    pod["spec"] = {
        name: value
        for name, value in pod["spec"].items()
        if name not in ("completions", "parallelism")
    } | ours["spec"]
    pod["metadata"] = ours["metadata"]
    pod["spec"]["containers"] = [container]
    _mount(pod["spec"], container, data_claim, ca_secret)
    _set_defaults(template["variables"]["properties"], image)
    if ca_secret:
        template["variables"]["properties"]["env"]["default"]["PGSSLROOTCERT"] = CA_FILE
    return template


def _mount(
    pod: Manifest, container: Manifest, data_claim: str | None, ca_secret: str | None
) -> None:
    if data_claim:
        claim = {"claimName": data_claim}
        pod["volumes"].append({"name": "data", "persistentVolumeClaim": claim})
        container["volumeMounts"].append({"name": "data", "mountPath": "/data"})
    if ca_secret:
        items = [{"key": "ca.crt", "path": "ca.crt"}]
        secret = {"secretName": ca_secret, "items": items}
        pod["volumes"].append({"name": "postgres-ca", "secret": secret})
        container["volumeMounts"].append(
            {"name": "postgres-ca", "mountPath": "/etc/postgres-ca", "readOnly": True}
        )


def _set_defaults(variables: Manifest, image: str) -> None:
    variables["image"]["default"] = image
    variables["namespace"]["default"] = "mhras"
    variables["image_pull_policy"]["default"] = "IfNotPresent"
    variables["finished_job_ttl"]["default"] = JOB_TTL_SECONDS
    variables["env"]["default"] = {"PREFECT_HOME": "/tmp/prefect", "HOME": "/tmp"}


def register_work_pool(client: httpx.Client, template: Manifest) -> None:
    """Create the work pool, or give it the template of this release. Raises RegistrationError."""
    body = {"name": WORK_POOL, "type": "kubernetes", "base_job_template": template}
    answer = client.post("/work_pools/", json=body)
    if answer.status_code == httpx.codes.CONFLICT:
        answer = client.patch(f"/work_pools/{WORK_POOL}", json={"base_job_template": template})
    if answer.is_error:
        raise RegistrationError(f"Prefect refused the work pool with status {answer.status_code}")


def deploy_flows(environment: Mapping[str, str]) -> None:
    """Deploy every flow of prefect.yaml to the work pool of the cluster.

    Raises RegistrationError.
    """
    declared = yaml.safe_load((PROJECT / "prefect.yaml").read_text())
    for deployment in declared["deployments"]:
        deployment["work_pool"] = {"name": WORK_POOL}
    with tempfile.TemporaryDirectory(prefix="mhras-deploy-") as folder:
        path = Path(folder) / "prefect.yaml"
        path.write_text(yaml.safe_dump(declared))
        prefect = str(Path(sys.executable).with_name("prefect"))
        command = [prefect, "--no-prompt", "deploy", "--all", "--prefect-file", str(path)]
        finished = subprocess.run(command, cwd=PROJECT, env=dict(environment), check=False)
    if finished.returncode:
        raise RegistrationError(f"prefect deploy ended with code {finished.returncode}")


def grant_reading(registry_url: str, reader: str) -> None:
    """Let `reader` read what the owner of the feature store has made and will make."""
    connection = psycopg2.connect(registry_url.replace("postgresql+psycopg2://", "postgresql://"))
    name = sql.Identifier(reader)
    statements = (
        "GRANT USAGE ON SCHEMA public TO {}",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO {}",
    )
    try:
        with connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(sql.SQL(statement).format(name))
    finally:
        connection.close()


def wait_for(url: str, patience: float = PATIENCE_SECONDS) -> None:
    """Wait until `url` returns 200; raises RegistrationError after a time."""
    until = time.monotonic() + patience
    while not answers(url):
        if time.monotonic() > until:
            raise RegistrationError(f"{url} did not answer within {patience:.0f} s")
        time.sleep(2)


def open_prefect(environment: Mapping[str, str]) -> httpx.Client:
    """Return a client of Prefect's API, logged in where it requires that."""
    user, _, password = environment.get("PREFECT_API_AUTH_STRING", "").partition(":")
    return httpx.Client(
        base_url=environment["PREFECT_API_URL"],
        auth=(user, password) if user else None,
        timeout=60,
        trust_env=False,
    )


def register_flows(environment: Mapping[str, str], flow_run: Path) -> None:
    """Register the work pool and every deployment."""
    template = make_job_template(
        yaml.safe_load(flow_run.read_text()),
        environment["FLOWS_IMAGE"],
        environment.get("FLOW_RUN_DATA_CLAIM"),
        environment.get("FLOW_RUN_POSTGRES_CA"),
    )
    wait_for(f"{environment['PREFECT_API_URL']}/health")
    with open_prefect(environment) as client:
        register_work_pool(client, template)
    deploy_flows(environment)


def register_readers(environment: Mapping[str, str]) -> None:
    """Make MLflow's reading and promoting logins, and let the API's role read the feature store."""
    mlflow = environment["MLFLOW_TRACKING_URI"]
    wait_for(f"{mlflow}/health")
    admin = environment["MLFLOW_TRACKING_USERNAME"], environment["MLFLOW_TRACKING_PASSWORD"]
    reader = environment["MLFLOW_READER_USERNAME"], environment["MLFLOW_READER_PASSWORD"]
    add_reviewer(mlflow, admin, *reader)
    promoter = environment["MLFLOW_PROMOTER_USERNAME"], environment["MLFLOW_PROMOTER_PASSWORD"]
    add_reviewer(mlflow, admin, *promoter)
    let_promote(mlflow, admin, promoter[0], (RELEASE_MODEL, *MEMBER_MODELS.values()))
    grant_reading(environment["FEAST_REGISTRY_URL"], environment["FEAST_READER_USERNAME"])


def run(
    flow_run: Annotated[
        Path | None, typer.Option(help="What every flow run's Job gets (YAML).")
    ] = None,
    readers_only: Annotated[
        bool, typer.Option("--readers-only", help="No work pool and no deployments.")
    ] = False,
) -> None:
    """Register work pool, deployments, MLflow's reading login and the feature store's reader."""
    if flow_run is None and not readers_only:
        raise typer.BadParameter("--flow-run or --readers-only is needed")
    try:
        if flow_run is not None:
            register_flows(os.environ, flow_run)
        register_readers(os.environ)
    except KeyError as error:
        sys.stderr.write(f"{error.args[0]} is not set\n")
        raise typer.Exit(2) from error
    except (RegistrationError, LoginError, psycopg2.Error, httpx.TransportError) as error:
        sys.stderr.write(f"registration failed: {error}\n")
        raise typer.Exit(1) from error
    sys.stdout.write("registered\n")


if __name__ == "__main__":
    typer.run(run)
