"""The steps of a restore, each as the runbook has it, in order."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import yaml
from pydantic import SecretStr
from sqlalchemy import Engine, create_engine, func, select

from feature_repo.stored_views import JOIN_KEY
from flows.lake.tables import scan_table
from flows.sources.contract import TABLES
from infra.backup.erasures import Receipt, reapply_erasures
from infra.backup.reading import open_backup, restore_backup
from infra.backup.settings import BackupSettings
from infra.cluster.databases import read_passwords, set_up_server
from infra.cluster.escrow import Secret, get_value, list_owner_urls
from infra.drill.places import K8S, Places, make_environment, read_workload
from infra.local.processes import ManagedProcess, start_process, wait_until_healthy
from infra.local.stack import NO_TELEMETRY
from serving.audit.signing import KeyRing, Signer
from serving.database.tables import Erasure, ErasureStore
from serving.individuals.erasure import ERASED_TABLES
from serving.settings import normalise_database_url


class DrillFailedError(RuntimeError):
    """A step did not restore what it must; the message names it."""


def make_databases(places: Places, secrets: Sequence[Secret]) -> None:
    """Make roles with their old passwords, and empty databases."""
    admin_url = places.postgres.url("postgres", driver="postgresql")
    set_up_server(admin_url, read_passwords(list(secrets)))


def restore(
    settings: BackupSettings,
    places: Places,
    secrets: Sequence[Secret],
    receipts: Sequence[Receipt],
) -> str:
    """Restore the newest backup into the empty places; return what was erased again."""
    urls = [places.move_url(url) for url in list_owner_urls(secrets)]
    target = settings.model_copy(
        update={
            "backup_database_urls": SecretStr(",".join(urls)),
            "backup_models_url": places.locate("models"),
            "backup_lake_url": places.locate("lake"),
            "backup_checkpoints_url": places.locate("checkpoints"),
        }
    )
    restore_backup(open_backup(target, None), lambda _text: None)
    with open_record(places, secrets) as engine:
        new, queued = reapply_erasures(engine, list(receipts), make_keys(secrets))
    return f"{new} erasures since the backup carried out, {queued} stores queued"


def make_keys(secrets: Sequence[Secret]) -> KeyRing:
    seed = get_value(secrets, "mhras-secrets", "audit_signing_key")
    return KeyRing([Signer(seed).public_key])


@contextmanager
def open_record(places: Places, secrets: Sequence[Secret]) -> Iterator[Engine]:
    """Give the restored record under its owner's login."""
    url = places.move_url(get_value(secrets, "mhras-owner-secrets", "database_url"))
    engine = create_engine(normalise_database_url(url), hide_parameters=True)
    try:
        yield engine
    finally:
        engine.dispose()


def migrate(places: Places, secrets: Sequence[Secret]) -> None:
    """Bring the tables up to date and make the API's login, as the migration Job does."""
    container = read_workload("migration/job.yaml", "Job", "migration")
    owner = get_value(secrets, "mhras-owner-secrets", "database_url")
    login = get_value(secrets, "mhras-secrets", "app_database_url")
    changes = {
        "DATABASE_URL": places.move_url(owner),
        "APP_DATABASE_URL": places.move_url(login),
    }
    environment = make_environment(container, secrets, changes)
    run_to_end(places, "migration", container["command"][1:], environment)


def start_mlflow(
    places: Places, secrets: Sequence[Secret], store: Mapping[str, str]
) -> ManagedProcess:
    container = read_workload("mlflow/mlflow.yaml", "Deployment", "mlflow")
    changes = {
        "MLFLOW_BACKEND_STORE_URI": places.move_url(
            get_value(secrets, "mlflow-secrets", "database_url")
        ),
        "MLFLOW_ARTIFACTS_DESTINATION": make_artifact_url(places.locate("models")),
        "HOME": str(places.state),
        **make_model_keys(store),
    }
    environment = make_environment(container, secrets, changes)
    command = [sys.executable, "-m", "mlruns_config.server", "--port", str(places.mlflow_port)]
    service = start_process(
        "mlflow", command, os.environ | NO_TELEMETRY | environment, places.state
    )
    return wait_or_stop(service, f"{places.mlflow_url}/health")


def wait_or_stop(service: ManagedProcess, *addresses: str) -> ManagedProcess:
    """Return a service once each address answers; stop it where one does not, and raise."""
    try:
        for address in addresses:
            wait_until_healthy(service, address)
    except BaseException:
        service.stop()
        raise
    return service


def make_model_keys(store: Mapping[str, str]) -> dict[str, str]:
    if "AWS_ACCESS_KEY_ID" not in store:
        return {}
    keys = {
        "AWS_ACCESS_KEY_ID": store["AWS_ACCESS_KEY_ID"],
        "MODEL_STORAGE_KEY": store["AWS_SECRET_ACCESS_KEY"],
    }
    if endpoint := store.get("AWS_ENDPOINT_URL"):
        keys["MLFLOW_S3_ENDPOINT_URL"] = endpoint
    return keys


def make_artifact_url(place: str) -> str:
    return place if "://" in place else Path(place).resolve().as_uri()


def start_api(
    places: Places, secrets: Sequence[Secret], store: Mapping[str, str]
) -> ManagedProcess:
    """Start the API with the variables of its Deployment, and wait until it has its release."""
    container = read_workload("api/deployment.yaml", "Deployment", "mhras-api")
    login = get_value(secrets, "mhras-secrets", "app_database_url")
    environment = make_environment(
        container, secrets, {"DATABASE_URL": places.move_url(login), **make_common(places), **store}
    )
    command = [sys.executable, "-m", "serving", "--port", str(places.api_port), "--workers", "1"]
    service = start_process("api", command, os.environ | environment, places.state)
    return wait_or_stop(service, f"{places.api_url}/health", f"{places.api_url}/health/ready")


def make_common(places: Places) -> dict[str, str]:
    return {
        "AUDIT_CHECKPOINT_URL": places.locate("checkpoints"),
        "LAKE_URL": places.locate("lake"),
        "MLFLOW_TRACKING_URI": places.mlflow_url,
        "FEAST_ONLINE_HOST": "127.0.0.1",
        "FEAST_ONLINE_PORT": str(places.postgres.port),
        "FEAST_ONLINE_SSLMODE": "disable",
        "MLFLOW_S3_ENDPOINT_URL": os.environ.get("AWS_ENDPOINT_URL", ""),
        **NO_TELEMETRY,
    }


def run_erasure_flow(places: Places, secrets: Sequence[Secret], store: Mapping[str, str]) -> None:
    """Empty lake, feature store and artifacts of everyone who was ever erased."""
    flow_run = yaml.safe_load((K8S / "registration" / "flow-run.yaml").read_text())
    (container,) = flow_run["spec"]["template"]["spec"]["containers"]
    owner = get_value(secrets, "mhras-flow-secrets", "DATABASE_URL")
    registry = get_value(secrets, "mhras-flow-secrets", "FEAST_REGISTRY_URL")
    changes = {
        "DATABASE_URL": places.move_url(owner),
        "FEAST_REGISTRY_URL": places.move_url(registry),
        "ALERT_WEBHOOK_URL": "",
        "PREFECT_HOME": str(places.state / "prefect"),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        **make_common(places),
        **store,
    }
    environment = make_environment(container, secrets, changes)
    # A server of its own for the run: the restored one belongs to the cluster.
    del environment["PREFECT_API_URL"]
    program = "from flows.erasure import erase_queued; erase_queued()"
    run_to_end(places, "erasure", ["-c", program], environment)


def run_to_end(
    places: Places, name: str, arguments: Sequence[str], environment: Mapping[str, str]
) -> None:
    """Run Python to its end; raises DrillFailedError with the end of its log."""
    log = places.state / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        code = subprocess.run(
            [sys.executable, *arguments],
            env=os.environ | NO_TELEMETRY | dict(environment),
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    if code:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-10:])
        raise DrillFailedError(f"{name} ended with code {code}:\n{end}\n({log})")


def check_erased(places: Places, secrets: Sequence[Secret]) -> int:
    """Return how many were ever erased; raises DrillFailedError when a row of one is left."""
    with open_record(places, secrets) as engine, engine.connect() as connection:
        erased = list(connection.scalars(select(Erasure.anonymized_id)))
        for table in ERASED_TABLES:
            column = table.__table__.c.anonymized_id
            query = select(func.count()).select_from(table).where(column.in_(erased))
            if connection.scalar(query):
                raise DrillFailedError(f"{table.__tablename__} has rows of people who were erased")
        undone = connection.scalar(
            select(func.count()).select_from(ErasureStore).where(ErasureStore.state != "done")
        )
    if undone:
        raise DrillFailedError(f"{undone} stores of erasures are not emptied")
    lake_url = places.locate("lake")
    for name in TABLES:
        rows = scan_table(lake_url, name).select(JOIN_KEY).collect()
        if set(rows[JOIN_KEY]) & set(erased):
            raise DrillFailedError(f"the lake's {name} has rows of people who were erased")
    return len(erased)


def check_answers(places: Places) -> str:
    """Return what the API serves; raises DrillFailedError when it is not healthy."""
    answer = httpx.get(f"{places.api_url}/health/ready", timeout=30, trust_env=False)
    if answer.is_error:
        raise DrillFailedError(f"/health/ready answers {answer.status_code}")
    return f"release {answer.json()['release']['version']}"
