"""A managed PostgreSQL 15: set up by the documented command, reached by every client over TLS."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg2
import pytest
import yaml
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

from infra.backup.encryption import make_key_pair
from infra.cluster.escrow import get_value
from infra.cluster.hosts import Environment, make_managed_hosts
from infra.cluster.secrets import EXTERNAL, make_secrets
from infra.local.ports import choose_port
from serving.settings import normalise_database_url
from tests.fixtures.outside_postgres import (
    ADMINISTRATOR,
    PASSWORD,
    PROGRAMS,
    OutsideServer,
    is_installed,
    run_outside_server,
)
from tests.fixtures.waiting import wait_for_answer
from tests.infra.cluster_objects import find

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(not is_installed(), reason="needs root and Debian's package postgresql-15"),
]
DATABASES = ("mhras", "mlflow", "prefect", "feast")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OutsideServer]:
    (cluster,) = find("production", "Cluster")
    rules = cluster["spec"]["postgresql"]["pg_hba"]
    with run_outside_server(tmp_path_factory.mktemp("outside"), rules) as running:
        yield running


@pytest.fixture(scope="module")
def secrets(server: OutsideServer) -> list[dict]:
    from dataclasses import replace

    hosts = replace(make_managed_hosts("localhost", server.authority.read_text()), port=server.port)
    given = dict.fromkeys(EXTERNAL, "given") | {"BACKUP_RECIPIENTS": make_key_pair()[0]}
    return make_secrets(Environment.PRODUCTION, given, hosts)


def set_up(server: OutsideServer, secrets: list[dict]) -> subprocess.CompletedProcess[str]:
    query = f"?sslmode=verify-full&sslrootcert={server.authority}"
    url = server.url(ADMINISTRATOR, PASSWORD, "postgres", query)
    return subprocess.run(
        [sys.executable, "-m", "infra.cluster.databases"],
        env=os.environ | {"DATABASE_ADMIN_URL": url.replace(" ", "%20")},
        input=yaml.safe_dump_all(secrets),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def ready(server: OutsideServer, secrets: list[dict]) -> str:
    done = set_up(server, secrets)
    assert done.returncode == 0, done.stderr
    migrated = run_with_authority(
        server,
        *("-m", "serving.database.migrate"),
        DATABASE_URL=get_value(secrets, "mhras-owner-secrets", "database_url"),
        APP_DATABASE_URL=get_value(secrets, "mhras-secrets", "app_database_url"),
    )
    assert migrated.returncode == 0, migrated.stderr
    return done.stdout


def run_with_authority(
    server: OutsideServer, *arguments: str, **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run Python with the variable that the component postgres-tls sets."""
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"PGSSLROOTCERT": str(server.authority)} | changes,
        capture_output=True,
        text=True,
        check=False,
    )


def get_owner(secrets: list[dict]) -> str:
    return get_value(secrets, "mhras-owner-secrets", "database_url")


# Refusals first.


def test_plaintext_is_refused_though_the_last_rule_would_take_it(
    server: OutsideServer, secrets: list[dict], ready: str
) -> None:
    with pytest.raises(psycopg2.OperationalError, match=r"pg_hba\.conf rejects"):
        psycopg2.connect(get_owner(secrets).replace("verify-full", "disable"))


def test_another_authority_and_another_name_are_refused(
    server: OutsideServer, secrets: list[dict], ready: str, tmp_path: Path
) -> None:
    url = get_owner(secrets)
    with pytest.raises(psycopg2.OperationalError, match=r"root certificate file"):
        psycopg2.connect(f"{url}&sslrootcert={tmp_path / 'none.crt'}")
    elsewhere = url.replace("@localhost:", "@127.0.0.1:")
    with pytest.raises(psycopg2.OperationalError, match="does not match host name"):
        psycopg2.connect(f"{elsewhere}&sslrootcert={server.authority}")


def test_a_server_that_is_no_postgresql_at_all_ends_in_one_line(secrets: list[dict]) -> None:
    done = set_up(OutsideServer(1, Path("/nowhere.crt")), secrets)
    assert done.returncode == 1
    assert done.stderr.startswith("the server refused: ")
    assert PASSWORD not in done.stderr


# Then what works.


def test_roles_and_databases_are_made_by_an_administrator_who_is_no_superuser(
    server: OutsideServer, secrets: list[dict], ready: str
) -> None:
    assert [line for line in ready.splitlines() if line.startswith("database ")] == [
        f"database {name}" for name in DATABASES
    ]
    again = set_up(server, secrets)
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[0] == "ready"


def test_slow_statements_that_only_a_superuser_may_count_are_said_to_be_uncounted(
    ready: str,
) -> None:
    assert "slow statements are not counted: pg_stat_statements in postgres needs" in ready


@pytest.mark.parametrize("role", ["feast_reader", "mhras_exporter", "prefect"])
def test_a_role_enters_its_own_databases_only(
    server: OutsideServer, secrets: list[dict], ready: str, role: str
) -> None:
    password = get_value(secrets, "postgres-secrets", f"{role}_password")
    query = f"?sslmode=verify-full&sslrootcert={server.authority}"
    with pytest.raises(psycopg2.OperationalError, match="permission denied"):
        psycopg2.connect(server.url(role, password, "mlflow", query))


def test_the_api_starts_and_answers_on_it(
    server: OutsideServer, secrets: list[dict], ready: str
) -> None:
    port = choose_port(18400)
    environment = os.environ | {
        "PGSSLROOTCERT": str(server.authority),
        "DATABASE_URL": get_value(secrets, "mhras-secrets", "app_database_url"),
        "JWT_SECRET_KEY": get_value(secrets, "mhras-secrets", "jwt_secret_key"),
        "ANONYMIZATION_SALT": get_value(secrets, "mhras-secrets", "anonymization_salt"),
        "AUDIT_SIGNING_KEY": get_value(secrets, "mhras-secrets", "audit_signing_key"),
        "RELEASE_PUBLIC_KEYS": get_value(secrets, "mhras-secrets", "release_public_keys"),
        "AUDIT_CHECKPOINT_URL": "memory://audit",
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
    }
    api = subprocess.Popen(
        [sys.executable, "-m", "serving", "--port", str(port)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/health")
        answer = httpx.get(f"http://127.0.0.1:{port}/health/ready", trust_env=False)
        # Only a release is missing.
        assert answer.json()["database"] == "reachable"
        waited = run_with_authority(
            server,
            *("-m", "serving.database.migrate", "--wait", "--patience", "0"),
            DATABASE_URL=environment["DATABASE_URL"],
        )
        assert waited.returncode == 0, waited.stderr
    finally:
        api.terminate()
        api.wait(timeout=40)


def wait_for(url: str) -> httpx.Response:
    return wait_for_answer(
        lambda: httpx.get(url, trust_env=False),
        lambda answer: answer.is_success,
        f"{url} did not answer",
    )


def test_prefect_s_driver_verifies_the_same_authority(
    server: OutsideServer, secrets: list[dict], ready: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSSLROOTCERT", str(server.authority))
    url = get_value(secrets, "prefect-secrets", "database_url")

    async def ask() -> bool:
        engine = create_async_engine(url)
        async with engine.connect() as connection:
            query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
            found = await connection.scalar(text(query))
        await engine.dispose()
        return bool(found)

    assert asyncio.run(ask())


def test_flows_and_the_feature_reader_reach_feast_s_database(
    server: OutsideServer, secrets: list[dict], ready: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSSLROOTCERT", str(server.authority))
    url = get_value(secrets, "mhras-flow-secrets", "FEAST_REGISTRY_URL")
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE registered (id int)"))
    engine.dispose()
    from infra.cluster.registration import grant_reading

    grant_reading(url, "feast_reader")
    reader = normalise_database_url(
        server.url(
            "feast_reader",
            get_value(secrets, "mhras-secrets", "feast_reader_password"),
            "feast",
            "?sslmode=verify-full",
        )
    )
    engine = create_engine(reader)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM registered")) == 0
    engine.dispose()


def test_the_backup_reads_all_four_databases_of_the_older_server(
    server: OutsideServer, secrets: list[dict], ready: str, tmp_path: Path
) -> None:
    done = run_with_authority(
        server,
        *("-m", "infra.backup", "run"),
        BACKUP_URL=str(tmp_path / "backups"),
        BACKUP_RECIPIENTS=get_value(secrets, "mhras-backup-secrets", "recipients"),
        BACKUP_DATABASE_URLS=get_value(secrets, "mhras-backup-secrets", "database_urls"),
        BACKUP_WITHOUT="models,lake,checkpoints,configuration",
        BACKUP_POSTGRES_BIN=str(PROGRAMS),
    )
    assert done.returncode == 0, done.stderr
    for name in DATABASES:
        assert f"databases/{name}.dump.age" in done.stdout


@pytest.mark.skipif(
    shutil.which("prometheus-postgres-exporter") is None,
    reason="Debian's package prometheus-postgres-exporter is not installed",
)
def test_debian_s_exporter_sees_the_server_with_the_manifest_s_uri(
    server: OutsideServer, secrets: list[dict], ready: str, tmp_path: Path
) -> None:
    (deployment,) = find("managed", "Deployment", "postgres-exporter")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    env = {one["name"]: one.get("value") for one in container["env"]}
    uri = env["DATA_SOURCE_URI"].replace("db.example.com:5432", f"localhost:{server.port}")
    uri = uri.replace("/etc/postgres-ca/ca.crt", str(server.authority))
    password = tmp_path / "password"
    password.write_text(get_value(secrets, "postgres-exporter-secrets", "password"))
    port = choose_port(19187)
    exporter = subprocess.Popen(
        ["prometheus-postgres-exporter", f"--web.listen-address=127.0.0.1:{port}"],
        env={
            "DATA_SOURCE_URI": uri,
            "DATA_SOURCE_USER": env["DATA_SOURCE_USER"],
            "DATA_SOURCE_PASS_FILE": str(password),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        shown = wait_for(f"http://127.0.0.1:{port}/metrics").text
    finally:
        exporter.terminate()
        exporter.wait(timeout=30)
    lines = shown.splitlines()
    assert "pg_up 1" in lines
    limits = [line for line in lines if line.startswith("pg_settings_max_connections{")]
    assert [line.rpartition(" ")[2] for line in limits] == ["60"]
    assert any(line.startswith("pg_stat_activity_count{") for line in lines)
