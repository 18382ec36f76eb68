"""The application's login may add to a record; it can neither change nor remove it."""

import os
import subprocess
import sys
import uuid

import pytest
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import ProgrammingError

from mlruns_config.ledger import ledger_metadata
from serving.database.access import UnusableLoginError, ensure_application_login
from serving.database.privileges import APPLICATION_ROLE
from serving.database.tables import Base

RECORDS = (
    *("audit_log", "audit_chain", "audit_checkpoints", "promotion_ledger"),
    *("erasures", "token_revocations"),
)
REFUSAL = r"permission denied|must be owner"
EVERY_TABLE = sorted([*Base.metadata.tables, *ledger_metadata.tables])


@pytest.fixture(scope="module")
def application(application_url):
    engine = create_engine(application_url)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("table", RECORDS)
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE {table} SET {column} = NULL",
        "DELETE FROM {table}",
        "TRUNCATE {table}",
        "DROP TABLE {table}",
        "ALTER TABLE {table} DISABLE TRIGGER ALL",
        "DROP TRIGGER {table}_is_append_only ON {table}",
        "CREATE RULE lost AS ON INSERT TO {table} DO INSTEAD NOTHING",
    ],
)
def test_a_record_is_out_of_the_applications_reach(application, table, change):
    column = inspect(application).get_columns(table)[1]["name"]
    with (
        pytest.raises(ProgrammingError, match=REFUSAL),
        application.begin() as connection,
    ):
        connection.execute(text(change.format(table=table, column=column)))


@pytest.mark.parametrize(
    "statement",
    [
        "SET ROLE postgres",
        "CREATE TABLE mine (id int)",
        "DROP FUNCTION refuse_change() CASCADE",
        "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE sql AS ''",
        "INSERT INTO consent_changes DEFAULT VALUES",
        "SET session_replication_role = replica",
    ],
)
def test_the_application_cannot_go_around_its_privileges(application, statement):
    with (
        pytest.raises(ProgrammingError, match=REFUSAL),
        application.begin() as connection,
    ):
        connection.execute(text(statement))


@pytest.mark.parametrize("table", EVERY_TABLE)
def test_the_application_reads_every_table_and_owns_none(application, table):
    query = text(
        "SELECT has_table_privilege(:table, 'SELECT'),"
        " pg_has_role(current_user, tableowner, 'MEMBER') FROM pg_tables WHERE tablename = :table"
    )
    with application.connect() as connection:
        assert connection.execute(query, {"table": table}).one() == (True, False)


def test_a_second_run_gives_the_login_its_new_password(postgres, database_url):
    name, database = f"api_{uuid.uuid4().hex[:8]}", database_url.rpartition("/")[2]
    for password in ("first", "p'ass\"word"):
        url = postgres.url_of(name, password, database)
        ensure_application_login(database_url, url)
        engine = create_engine(url)
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT current_user")) == name
        engine.dispose()


@pytest.mark.parametrize("user", ["postgres", APPLICATION_ROLE])
def test_the_owner_is_no_login_for_the_application(postgres, database_url, user):
    with pytest.raises(UnusableLoginError, match="another user"):
        ensure_application_login(database_url, postgres.url_of(user, "x", "mhras"))


def test_the_migration_command_makes_the_login(postgres, database_url):
    url = postgres.url_of("api_of_command", "secret-word", database_url.rpartition("/")[2])
    result = subprocess.run(
        [sys.executable, "-m", "serving.database.migrate"],
        env={"PATH": os.environ["PATH"], "DATABASE_URL": database_url, "APP_DATABASE_URL": url},
        capture_output=True,
        text=True,
    )

    assert result.stdout.endswith("application login: api_of_command\n")
    assert "secret-word" not in result.stdout + result.stderr
