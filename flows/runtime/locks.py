"""Who may work alone: locks in PostgreSQL, which frees those of a process that was killed."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from flows.runtime.database import open_database


class AlreadyRunningError(RuntimeError):
    """Another process does the same work against this database."""


@contextmanager
def hold_lock(name: str) -> Iterator[Engine]:
    """Wait for a lock and hold it; give an engine of the database meanwhile."""
    with _connect(f"SELECT true FROM pg_advisory_lock({_NUMBER})", name) as (engine, _):
        yield engine


@contextmanager
def run_alone(name: str) -> Iterator[None]:
    """Hold a lock, or raise AlreadyRunningError where another process holds it."""
    with _connect(f"SELECT pg_try_advisory_lock({_NUMBER})", name) as (_, taken):
        if not taken:
            raise AlreadyRunningError(f"another {name} is running against this database")
        yield


_NUMBER = "hashtextextended(:name, 7)"


@contextmanager
def _connect(statement: str, name: str) -> Iterator[tuple[Engine, bool]]:
    # Without AUTOCOMMIT the connection would sit in a transaction all the while. The lock is
    # the connection's, and ends with it; were it gone meanwhile, the work is not to fail.
    named = {"name": f"mhras {name}"}
    with (
        open_database() as engine,
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
    ):
        yield engine, bool(connection.scalar(text(statement), named))
        # A server that is busy ends a closed session late, and its locks with it.
        with suppress(DBAPIError):
            connection.execute(text("SELECT pg_advisory_unlock_all()"))
