"""The restore drill, whole: a cluster's state, its loss, and one command that brings it back."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import polars as pl
import pytest
from sqlalchemy import create_engine

from feature_repo.pseudonyms import assign_bucket
from infra.backup.encryption import make_key_pair
from infra.cluster.databases import read_passwords, set_up_server
from infra.cluster.escrow import EscrowError, get_value, keep_escrow, open_escrow
from infra.cluster.hosts import Environment, Hosts
from infra.cluster.secrets import EXTERNAL, make_secrets
from infra.local.ports import choose_port
from infra.local.postgres import PostgresServer, remove_root_state, start_postgres
from serving.audit import Event
from serving.audit.checkpoints import CheckpointStore
from serving.audit.sealer import seal_rows, sign_checkpoint
from serving.audit.signing import Signer
from serving.audit.trail import make_row
from serving.database.access import ensure_application_login
from serving.database.migrate import upgrade
from serving.database.sessions import open_session
from serving.database.tables import Consent
from serving.individuals.erasure import erase_individual
from serving.settings import normalise_database_url
from tests.fixtures.landed_tables import make_table
from tests.fixtures.mlflow_server import wait_until_healthy
from tests.fixtures.object_store import KEY_ID, SECRET, run_object_store
from tests.fixtures.postgres_options import FAST_AND_LOOSE
from tests.fixtures.releases import ReleaseFactory

STAYS, LEFT_BEFORE, LEAVES_AFTER = "1" * 32, "2" * 32, "3" * 32
BUCKETS = ("models", "lake", "audit", "backups", "restored")


@dataclass
class Cluster:
    """What a cluster has: PostgreSQL, buckets, Secrets; and the keys of its backups."""

    postgres: PostgresServer
    folder: Path
    store: dict[str, str]
    secrets: list[dict]
    recipient: str

    def url(self, secret: str, key: str) -> str:
        return normalise_database_url(get_value(self.secrets, secret, key))

    def run(self, *arguments: str, **changes: str) -> str:
        environment = os.environ | self.store | changes
        finished = subprocess.run(
            [sys.executable, "-m", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert finished.returncode == 0, finished.stdout + finished.stderr
        return finished.stdout


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    port = choose_port(15700)
    postgres = start_postgres(tmp_path / "postgres", port, "admin", FAST_AND_LOOSE)
    recipient, identity = make_key_pair()
    (tmp_path / "key.txt").write_text(identity)
    given = dict.fromkeys(EXTERNAL, "given") | {"BACKUP_RECIPIENTS": recipient}
    hosts = Hosts("127.0.0.1", "127.0.0.1", port=port)
    secrets = make_secrets(Environment.STAGING, given, hosts)
    with run_object_store("backups") as endpoint:
        store = {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        client = open_store(store)
        for bucket in BUCKETS:
            client.create_bucket(Bucket=bucket)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in store.items():
                patch.setenv(name, value)
            yield Cluster(postgres, tmp_path, store, secrets, recipient)
    postgres.stop()
    remove_root_state(tmp_path / "postgres")


def open_store(store: dict[str, str]):
    return boto3.client(
        "s3",
        endpoint_url=store["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id=KEY_ID,
        aws_secret_access_key=SECRET,
    )


def fill_databases(cluster: Cluster) -> None:
    set_up_server(
        cluster.postgres.url("postgres", driver="postgresql"), read_passwords(cluster.secrets)
    )
    owner = cluster.url("mhras-owner-secrets", "database_url")
    upgrade(owner)
    ensure_application_login(owner, cluster.url("mhras-secrets", "app_database_url"))
    signer = Signer(get_value(cluster.secrets, "mhras-secrets", "audit_signing_key"))
    engine = create_engine(owner)
    with open_session(engine) as session:
        for person in (STAYS, LEFT_BEFORE, LEAVES_AFTER):
            session.add(make_consent(person))
        event = Event("test_event", "act", STAYS, ["survey"], {})
        session.add(make_row("u", "clinician", "success", None, event))
    with open_session(engine) as session:
        erase_individual(session, LEFT_BEFORE, "u", signer)
    seal_rows(engine)
    sign_checkpoint(engine, CheckpointStore("s3://audit/checkpoints"), signer)
    engine.dispose()


def make_consent(person: str) -> Consent:
    now = datetime.now(UTC)
    return Consent(
        anonymized_id=person,
        granted_at=now - timedelta(days=1),
        data_types=["survey"],
        purposes=["screening"],
        expires_at=now + timedelta(days=300),
        key_id="k",
    )


def fill_lake() -> None:
    now = datetime.now(UTC)
    rows = [
        {
            "anonymized_id": person,
            "instrument": "phq9",
            "answered_at": now,
            "available_at": now,
            "ingested_at": now,
            "key_id": "0" * 8,
            "bucket": assign_bucket(person),
        }
        for person in (STAYS, LEFT_BEFORE, LEAVES_AFTER)
    ]
    make_table("surveys", *rows).write_delta(
        "s3://lake/lake/surveys",
        storage_options={"aws_allow_http": "true"},
        delta_write_options={"partition_by": ["bucket"]},
    )


@contextmanager
def run_mlflow(cluster: Cluster) -> Iterator[str]:
    port = choose_port(15800)
    environment = os.environ | {
        "MLFLOW_BACKEND_STORE_URI": cluster.url("mlflow-secrets", "database_url"),
        "MLFLOW_ARTIFACTS_DESTINATION": "s3://models/mlflow",
        "MLFLOW_S3_ENDPOINT_URL": cluster.store["AWS_ENDPOINT_URL"],
        "MODEL_STORAGE_KEY": SECRET,
        "MLFLOW_AUTH_ADMIN_PASSWORD": get_value(
            cluster.secrets, "mlflow-secrets", "admin_password"
        ),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": get_value(
            cluster.secrets, "mlflow-secrets", "flask_secret_key"
        ),
        "TMPDIR": str(cluster.folder),
    }
    log = cluster.folder / "mlflow.log"
    command = [sys.executable, "-m", "mlruns_config.server", "--port", str(port)]
    with log.open("wb") as output:
        server = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_healthy(url, server, log)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=30)


def publish_release(cluster: Cluster, patch: pytest.MonkeyPatch) -> None:
    environment = cluster.folder / "registration"
    environment.mkdir()
    with run_mlflow(cluster) as url:
        patch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        patch.setenv(
            "MLFLOW_TRACKING_PASSWORD",
            get_value(cluster.secrets, "mlflow-secrets", "admin_password"),
        )
        signing_key = get_value(cluster.secrets, "mhras-flow-secrets", "RELEASE_SIGNING_KEY")
        ReleaseFactory(url, environment, signing_key).publish()
        feast = get_value(cluster.secrets, "mhras-flow-secrets", "FEAST_REGISTRY_URL")
        cluster.run(
            "infra.cluster.registration",
            "--readers-only",
            MLFLOW_TRACKING_URI=url,
            MLFLOW_READER_USERNAME="mhras-reader",
            MLFLOW_READER_PASSWORD=get_value(
                cluster.secrets, "mhras-secrets", "mlflow_reader_password"
            ),
            MLFLOW_PROMOTER_USERNAME="mhras-promoter",
            MLFLOW_PROMOTER_PASSWORD=get_value(
                cluster.secrets, "mhras-secrets", "mlflow_promoter_password"
            ),
            FEAST_REGISTRY_URL=feast,
            FEAST_READER_USERNAME="feast_reader",
        )


def back_up(cluster: Cluster) -> dict[str, str]:
    """Take a backup as the CronJob does, and keep the Secrets beside it."""
    backup = {
        "BACKUP_URL": "s3://backups/mhras",
        "BACKUP_RECIPIENTS": cluster.recipient,
        "BACKUP_DATABASE_URLS": get_value(cluster.secrets, "mhras-backup-secrets", "database_urls"),
        "BACKUP_MODELS_URL": "s3://models/mlflow",
        "BACKUP_LAKE_URL": "s3://lake/lake",
        "BACKUP_CHECKPOINTS_URL": "s3://audit/checkpoints",
        "BACKUP_WITHOUT": "configuration",
    }
    cluster.run("infra.backup", "run", **backup)
    keep_escrow(backup["BACKUP_URL"], cluster.secrets, cluster.recipient)
    return {
        "BACKUP_URL": backup["BACKUP_URL"],
        "BACKUP_IDENTITY_FILE": str(cluster.folder / "key.txt"),
    }


def erase_after_the_backup(cluster: Cluster) -> Path:
    signer = Signer(get_value(cluster.secrets, "mhras-secrets", "audit_signing_key"))
    engine = create_engine(cluster.url("mhras-owner-secrets", "database_url"))
    with open_session(engine) as session:
        receipt = erase_individual(session, LEAVES_AFTER, "u", signer).erasure.receipt
    engine.dispose()
    path = cluster.folder / "receipts.json"
    path.write_text(json.dumps([receipt]))
    return path


def lose_everything(cluster: Cluster) -> None:
    """PostgreSQL with its data, and every bucket but that of the backups."""
    cluster.postgres.stop()
    remove_root_state(cluster.folder / "postgres")
    client = open_store(cluster.store)
    for bucket in ("models", "lake", "audit"):
        for one in client.list_objects_v2(Bucket=bucket).get("Contents", []):
            client.delete_object(Bucket=bucket, Key=one["Key"])
        assert client.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_no_escrow_is_an_error_that_says_how_one_is_made(tmp_path: Path) -> None:
    with pytest.raises(EscrowError, match="escrow seal"):
        open_escrow(str(tmp_path), None)


@pytest.mark.nightly
def test_one_command_brings_a_lost_cluster_back_and_the_erased_stay_erased(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill_databases(cluster)
    fill_lake()
    publish_release(cluster, monkeypatch)
    access = back_up(cluster)
    receipts = erase_after_the_backup(cluster)
    lose_everything(cluster)

    shown = cluster.run(
        "infra.drill", "--store", "s3://restored/a", "--erasures", str(receipts), **access
    )

    with capsys.disabled():
        sys.stdout.write(f"\n{shown}")
    assert "1 erasures since the backup carried out, 6 stores queued" in shown
    assert "the API is healthy and answers with release 1" in shown
    assert "all 2 who were ever erased still are" in shown
    assert "restored in" in shown
    lake = pl.read_delta("s3://restored/a/lake/surveys", storage_options={"aws_allow_http": "true"})
    assert lake["anonymized_id"].to_list() == [STAYS]
