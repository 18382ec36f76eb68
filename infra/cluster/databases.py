"""Roles and databases on a PostgreSQL server outside the cluster, made by its administrator.

    kubectl get secret postgres-secrets -n mhras -o yaml |
      DATABASE_ADMIN_URL=postgresql://admin:...@db.example.com:5432/postgres?sslmode=verify-full \
      python -m infra.cluster.databases

The administrator need not be a superuser: what RDS, Cloud SQL and Azure give is enough
(CREATEROLE, CREATEDB, membership of pg_monitor and pg_read_all_data). PostgreSQL 14 or newer. Safe
to run again: roles get the passwords of the Secret, databases that exist stay as they are.
"""

import os
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

import psycopg2
import typer
from psycopg2 import extensions, sql

from infra.cluster.escrow import EscrowError, get_value, read_cluster_secrets

OWNERS = ("mhras", "mlflow", "prefect", "feast")
#: Logins that own nothing, with the server's own roles that they are members of.
READERS = {
    "feast_reader": None,
    "mhras_backup": "pg_read_all_data",
    "mhras_exporter": "pg_monitor",
}
#: What a login may enter beside what it owns.
CONNECTS = {"feast_reader": ("feast",), "mhras_backup": OWNERS}
STATEMENTS = "pg_stat_statements"
OLDEST_SERVER = 140000


class SetUpError(RuntimeError):
    """The server cannot be set up; the message names what it or its administrator lacks."""


def set_up_server(admin_url: str, passwords: Mapping[str, str]) -> list[str]:
    """Make roles and databases; return what was made, one line each.

    Raises SetUpError for a server that is too old, psycopg2.Error for what it refuses.
    """
    connection = psycopg2.connect(admin_url)
    # CREATE DATABASE runs in no transaction.
    connection.autocommit = True
    try:
        if connection.server_version < OLDEST_SERVER:
            raise SetUpError("PostgreSQL 14 or newer is needed")
        with connection.cursor() as cursor:
            made = [_ensure_role(cursor, role, passwords[role]) for role in (*OWNERS, *READERS)]
            made += [_ensure_database(cursor, name) for name in OWNERS]
            _grant(cursor)
    finally:
        connection.close()
    return [line for line in made if line]


def _ensure_role(cursor: extensions.cursor, role: str, password: str) -> str:
    # Only the hash leaves this process: statements may end up in the server's log.
    secret = extensions.encrypt_password(
        password, role, scope=cursor.connection, algorithm="scram-sha-256"
    )
    # The migration makes the API's role and login, so the owner of mhras may create roles.
    creates = sql.SQL("CREATEROLE" if role == "mhras" else "NOCREATEROLE")
    cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,))
    verb = "ALTER" if cursor.fetchone() else "CREATE"
    statement = sql.SQL(verb + " ROLE {} LOGIN {} PASSWORD {}")
    cursor.execute(statement.format(sql.Identifier(role), creates, sql.Literal(secret)))
    return f"role {role}" if verb == "CREATE" else ""


def _ensure_database(cursor: extensions.cursor, name: str) -> str:
    cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
    if cursor.fetchone():
        return ""
    # A login that is no superuser transfers only to a role it is a member of.
    cursor.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(sql.Identifier(name)))
    cursor.execute(
        sql.SQL("CREATE DATABASE {} OWNER {} ENCODING 'UTF8' TEMPLATE template0").format(
            sql.Identifier(name), sql.Identifier(name)
        )
    )
    return f"database {name}"


def _grant(cursor: extensions.cursor) -> None:
    for database in OWNERS:
        _execute(cursor, "REVOKE CONNECT ON DATABASE {} FROM PUBLIC", database)
        # The API's own login comes later, as a member of PUBLIC.
        if database == "mhras":
            _execute(cursor, "GRANT CONNECT ON DATABASE {} TO PUBLIC", database)
    for login, databases in CONNECTS.items():
        for database in databases:
            _execute(cursor, "GRANT CONNECT ON DATABASE {} TO {}", database, login)
    for login, group in READERS.items():
        if group:
            _execute(cursor, "GRANT {} TO {}", group, login)


def _execute(cursor: extensions.cursor, statement: str, *names: str) -> None:
    cursor.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def enable_statements(
    admin_url: str, databases: tuple[str, ...] = ("postgres", *OWNERS)
) -> str | None:
    """Make pg_stat_statements in each database; return what is in the way, None for nothing."""
    for database in databases:
        connection = psycopg2.connect(admin_url, dbname=database)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute("SHOW shared_preload_libraries")
                if STATEMENTS not in str(cursor.fetchall()[0][0]):
                    return f"{STATEMENTS} is not in shared_preload_libraries: add it there"
                cursor.execute(f"CREATE EXTENSION IF NOT EXISTS {STATEMENTS}")
        except psycopg2.errors.InsufficientPrivilege:
            return f"{STATEMENTS} in {database} needs a superuser: CREATE EXTENSION {STATEMENTS}"
        finally:
            connection.close()
    return None


def read_passwords(secrets: list[dict[str, Any]]) -> dict[str, str]:
    """Return each role's password from the Secret postgres-secrets."""
    return {
        role: get_value(secrets, "postgres-secrets", f"{role}_password")
        for role in (*OWNERS, *READERS)
    }


def run() -> None:
    """Make roles and databases with the passwords of postgres-secrets (YAML, standard input)."""
    admin_url = os.environ.get("DATABASE_ADMIN_URL")
    if not admin_url:
        _stop("DATABASE_ADMIN_URL is not set: postgresql://admin:password@host:5432/postgres")
    try:
        passwords = read_passwords(read_cluster_secrets(sys.stdin.read()))
        made = set_up_server(admin_url, passwords)
        obstacle = enable_statements(admin_url)
    except (EscrowError, SetUpError) as error:
        _stop(str(error))
    except psycopg2.Error as error:
        _stop(f"the server refused: {str(error).strip().partition(chr(10))[0]}")
    sys.stdout.write("\n".join([*made, "ready"]) + "\n")
    if obstacle:
        sys.stdout.write(f"slow statements are not counted: {obstacle}\n")


def _stop(reason: str) -> NoReturn:
    sys.stderr.write(f"{reason}\n")
    raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(run)
