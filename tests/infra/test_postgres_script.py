"""The script that makes databases and owners, run by a real server's own psql."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from infra.backup.databases import find_program
from infra.local.ports import choose_port
from infra.local.postgres import PostgresServer, remove_root_state, start_postgres
from tests.fixtures.postgres_options import FAST_AND_LOOSE
from tests.infra.cluster_objects import PROJECT

SCRIPT = PROJECT / "infra" / "k8s" / "base" / "postgres" / "10-databases.sh"
PASSWORDS = {
    "mhras": "MHRAS_PASSWORD",
    "mlflow": "MLFLOW_PASSWORD",
    "prefect": "PREFECT_PASSWORD",
    "feast": "FEAST_PASSWORD",
    "feast_reader": "FEAST_READER_PASSWORD",
    "mhras_backup": "BACKUP_PASSWORD",
    "mhras_exporter": "EXPORTER_PASSWORD",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server of its own: roles belong to a server, not to a database."""
    state = tmp_path_factory.mktemp("script")
    options = FAST_AND_LOOSE | {"shared_preload_libraries": "pg_stat_statements"}
    started = start_postgres(state, choose_port(15532), "test", options)
    psql = Path(find_program("psql", None)).parent
    finished = subprocess.run(
        ["bash", str(SCRIPT)],
        env={
            "PATH": f"{psql}:{os.environ['PATH']}",
            "PGHOST": "127.0.0.1",
            "PGPORT": str(started.port),
            "PGPASSWORD": "test",
            "POSTGRES_USER": "postgres",
            **{variable: f"pass'{role}" for role, variable in PASSWORDS.items()},
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    yield started
    started.stop()
    remove_root_state(state)


def connect(server: PostgresServer, role: str, database: str):
    return psycopg2.connect(server.url_of(role, f"pass'{role}", database, "postgresql"))


@pytest.mark.parametrize("role", ["prefect", "feast_reader", "mhras_exporter"])
def test_a_role_cannot_enter_another_s_database(server: PostgresServer, role: str) -> None:
    with pytest.raises(psycopg2.OperationalError, match="permission denied"):
        connect(server, role, "mlflow")


def test_the_owner_migrates_and_makes_the_api_s_login_that_owns_nothing(
    server: PostgresServer,
) -> None:
    from serving.database.access import ensure_application_login
    from serving.database.migrate import upgrade

    owner = server.url_of("mhras", "pass'mhras", "mhras")
    upgrade(owner)
    ensure_application_login(owner, server.url_of("mhras_api", "api-password", "mhras"))
    connection = psycopg2.connect(server.url_of("mhras_api", "api-password", "mhras", "postgresql"))
    with pytest.raises(psycopg2.errors.InsufficientPrivilege), connection.cursor() as cursor:
        cursor.execute("DELETE FROM audit_log")
    connection.close()


def test_prefect_s_owner_may_make_the_extension_it_needs(server: PostgresServer) -> None:
    connection = connect(server, "prefect", "prefect")
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE EXTENSION pg_trgm")
    connection.close()


def test_the_backup_reads_every_database_and_writes_none(server: PostgresServer) -> None:
    for database in ("mhras", "mlflow", "prefect", "feast"):
        connection = connect(server, "mhras_backup", database)
        with pytest.raises(psycopg2.errors.InsufficientPrivilege), connection.cursor() as cursor:
            cursor.execute("CREATE TABLE mine ()")
        connection.close()


def test_the_exporter_sees_everybody_s_connections(server: PostgresServer) -> None:
    connection = connect(server, "mhras_exporter", "postgres")
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_has_role('mhras_exporter', 'pg_monitor', 'member')")
        assert cursor.fetchall() == [(True,)]
    connection.close()
