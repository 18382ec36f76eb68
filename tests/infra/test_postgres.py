"""The embedded PostgreSQL server."""

import os
import shutil
from pathlib import Path

import psycopg2
import pytest

from infra.local.ports import choose_port
from infra.local.postgres import (
    PostgresServer,
    PostgresStartError,
    remove_root_state,
    start_postgres,
)


def fetch_value(server: PostgresServer, database: str, query: str) -> str:
    connection = psycopg2.connect(server.url(database, driver="postgresql"))
    try:
        with connection.cursor() as cursor:
            cursor.execute(query)
            return str(cursor.fetchall()[0][0])
    finally:
        connection.close()


def test_a_wrong_password_is_refused(postgres: PostgresServer) -> None:
    url = postgres.url("postgres", driver="postgresql").replace(":test@", ":guess@")
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(url)


def test_a_port_somebody_else_answers_on_is_refused(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    with pytest.raises(PostgresStartError):
        start_postgres(tmp_path, postgres.port, "other")


def test_one_server_holds_several_databases_with_contrib(postgres: PostgresServer) -> None:
    postgres.create_databases(["first", "second"])
    postgres.create_databases(["first", "second"])
    fetch_value(postgres, "second", "CREATE EXTENSION IF NOT EXISTS pg_trgm; SELECT 1")
    assert fetch_value(postgres, "first", "SELECT current_database()") == "first"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder others cannot enter")
def test_a_folder_only_root_may_enter_still_hosts_a_server_and_keeps_its_data(
    tmp_path: Path,
) -> None:
    home = tmp_path / "closed"
    home.mkdir(mode=0o700)
    port = choose_port(16432)
    try:
        server = start_postgres(home / "state", port, "secret")
        server.create_databases(["kept"])
        server.stop()
        server = start_postgres(home / "state", port, "secret")
        assert fetch_value(server, "kept", "SELECT current_database()") == "kept"
        server.stop()
    finally:
        remove_root_state(home / "state")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root keeps data outside the state")
def test_a_state_that_was_deleted_starts_anew_with_another_password(tmp_path: Path) -> None:
    home = tmp_path / "closed"
    home.mkdir(mode=0o700)
    port = choose_port(16432)
    try:
        start_postgres(home / "state", port, "old")
        shutil.rmtree(home / "state")

        server = start_postgres(home / "state", port, "new")

        assert fetch_value(server, "postgres", "SELECT 1") == "1"
        server.stop()
    finally:
        remove_root_state(home / "state")
