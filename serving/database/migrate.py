"""Bring the MHRAS database to a revision: `python -m serving.database.migrate`.

Safe to start from several pods at once: a session-level advisory lock lets one of them
migrate while the others wait and then find nothing to do. With APP_DATABASE_URL set, the
login named there is made a member of the application's role (`serving.database.access`).
`--wait` changes nothing: it ends once the database has this version's revision.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import psycopg2
import typer
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, NullPool, create_engine, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from serving.database.access import ensure_application_login
from serving.settings import normalise_database_url

SCRIPTS = Path(__file__).parent / "migrations"

#: Any fixed number will do, as long as every pod uses the same: "mhras" in ASCII.
LOCK_KEY = 0x6D68726173


def upgrade(database_url: str, revision: str = "head") -> tuple[str | None, str | None]:
    """Migrate up to `revision`; return the revisions before and after (None: empty)."""
    return _migrate(database_url, lambda config: command.upgrade(config, revision))


def downgrade(database_url: str, revision: str = "base") -> tuple[str | None, str | None]:
    """Migrate down to `revision`; `base` drops every table and all that is in them."""
    return _migrate(database_url, lambda config: command.downgrade(config, revision))


class NotMigratedError(RuntimeError):
    """The database did not get to this version's revision in time; names both."""


def wait_for_revision(database_url: str, patience: float, pause: float = 2) -> str:
    """Wait until the database is at this version's revision, or a newer one; return it.

    A revision that these scripts do not know is a newer version's, whose tables this one can use
    (migrations are additive): so that a rollback of the program is not kept waiting. Raises
    NotMigratedError after `patience` seconds.
    """
    scripts = ScriptDirectory(str(SCRIPTS))
    older = {script.revision for script in scripts.walk_revisions()} - {scripts.get_current_head()}
    engine = create_engine(database_url, poolclass=NullPool, hide_parameters=True)
    until = time.monotonic() + patience
    while True:
        try:
            with engine.connect() as connection:
                revision = _read_revision(connection) or "empty"
        except SQLAlchemyError as error:
            revision = f"not readable ({type(error).__name__})"
        else:
            if revision != "empty" and revision not in older:
                return revision
        if time.monotonic() > until:
            wanted = scripts.get_current_head()
            raise NotMigratedError(f"the database is {revision} and not at {wanted}")
        time.sleep(pause)


def make_config(connection: Connection) -> Config:
    """Return the Alembic configuration that runs on an open connection."""
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    config.attributes["connection"] = connection
    return config


def _migrate(database_url: str, run: Callable[[Config], None]) -> tuple[str | None, str | None]:
    engine = create_engine(database_url, poolclass=NullPool, hide_parameters=True)
    with engine.connect() as connection, _hold_lock(connection):
        before = _read_revision(connection)
        run(make_config(connection))
        return before, _read_revision(connection)


@contextmanager
def _hold_lock(connection: Connection) -> Iterator[None]:
    connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": LOCK_KEY})
    connection.commit()
    try:
        yield
    finally:
        connection.rollback()
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": LOCK_KEY})
        connection.commit()


def _read_revision(connection: Connection) -> str | None:
    revision = MigrationContext.configure(connection).get_current_revision()
    connection.commit()
    return revision


def run(
    down: Annotated[bool, typer.Option("--down", help="Migrate down instead of up.")] = False,
    revision: Annotated[
        str | None, typer.Argument(help="Target; by default head, or base with --down.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Migrate nothing; wait until another process has.")
    ] = False,
    patience: Annotated[float, typer.Option(help="Seconds that --wait waits.", min=0)] = 900,
) -> None:
    """Migrate the database named by DATABASE_URL."""
    if wait:
        _wait(patience)
        return
    try:
        url = normalise_database_url(os.environ.get("DATABASE_URL", ""))
        migrate = downgrade if down else upgrade
        before, after = migrate(url, revision or ("base" if down else "head"))
        login = None if down else _ensure_login(url, os.environ.get("APP_DATABASE_URL"))
    except (ValueError, CommandError) as error:
        _fail(str(error))
    except OperationalError as error:
        _fail(f"cannot reach the database: {str(error.orig).strip().splitlines()[0]}")
    except psycopg2.Error as error:
        _fail(f"cannot make the application's login: {str(error).strip().splitlines()[0]}")
    outcome = f"already at {after or 'empty'}" if before == after else _describe(before, after)
    sys.stdout.write(f"database migration: {outcome}\n")
    if login:
        sys.stdout.write(f"application login: {login}\n")


def _wait(patience: float) -> None:
    try:
        url = normalise_database_url(os.environ.get("DATABASE_URL", ""))
        revision = wait_for_revision(url, patience)
    except (ValueError, NotMigratedError) as error:
        _fail(str(error))
    sys.stdout.write(f"database migration: at {revision}\n")


def _ensure_login(url: str, application_url: str | None) -> str | None:
    if not application_url:
        return None
    return ensure_application_login(url, normalise_database_url(application_url))


def _describe(before: str | None, after: str | None) -> str:
    return f"{before or 'empty'} -> {after or 'empty'}"


def _fail(reason: str) -> None:
    sys.stderr.write(f"database migration failed: {reason}\n")
    raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(run)
