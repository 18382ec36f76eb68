"""Engines and sessions of the MHRAS database."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.orm import Session

from feature_repo.postgres_deadlines import bind_limit
from feature_repo.postgres_sessions import begin_sessions_with


def create_database_engine(database_url: str, deadline_seconds: float | None = None) -> Engine:
    """Return an engine with the deployment guide's pool: 20 + 10 connections, pre-ping.

    With `deadline_seconds` no connection attempt and no statement takes longer than that.
    Errors never show parameters: they are data about individuals.
    """
    engine = create_engine(
        database_url,
        pool_size=20,
        max_overflow=10,
        pool_timeout=deadline_seconds or 30,
        pool_recycle=3600,
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args=_limit_connecting(deadline_seconds) if deadline_seconds else {},
    )
    return _limit_statements(engine, deadline_seconds) if deadline_seconds else engine


def _limit_connecting(deadline_seconds: float) -> dict[str, Any]:
    """Return the options by which a lost or frozen peer is given up within the deadline."""
    whole_seconds = max(1, int(deadline_seconds))
    return {
        # libpq counts whole seconds and reads 1 as 2.
        "connect_timeout": max(2, whole_seconds),
        "tcp_user_timeout": whole_seconds * 1000,
        "keepalives_idle": whole_seconds,
        "keepalives_interval": 1,
        "keepalives_count": 3,
        "connection_factory": bind_limit(deadline_seconds),
    }


def _limit_statements(engine: Engine, deadline_seconds: float) -> Engine:
    return begin_sessions_with(engine, {"statement_timeout": int(deadline_seconds * 1000)})


def create_single_engine(database_url: str, deadline_seconds: float) -> Engine:
    """Return an engine of one connection for statements that are transactions of their own.

    It is not asked whether it lives before each of them, which would double their time: who
    uses it repeats a statement whose connection turns out to have died.
    """
    engine = create_engine(
        database_url,
        pool_size=1,
        max_overflow=0,
        isolation_level="AUTOCOMMIT",
        pool_reset_on_return=None,
        hide_parameters=True,
        connect_args=_limit_connecting(deadline_seconds),
    )
    return _limit_statements(engine, deadline_seconds)


@contextmanager
def open_session(engine: Engine) -> Iterator[Session]:
    """One unit of work: commits at the end, rolls back on any error."""
    with Session(engine, expire_on_commit=False) as session, session.begin():
        yield session


def run_after_commit(session: Session, act: Callable[[], None]) -> None:
    """Do something once the session's work is durable; what is rolled back never happened."""

    @event.listens_for(session, "after_commit", once=True)
    def _act(_session: Session) -> None:
        act()
