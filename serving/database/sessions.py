"""Engines and sessions of the MHRAS database."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session


def create_database_engine(database_url: str) -> Engine:
    """Return an engine with the deployment guide's pool: 20 + 10 connections, pre-ping."""
    return create_engine(
        database_url,
        pool_size=20,
        max_overflow=10,
        pool_timeout=30,
        pool_recycle=3600,
        pool_pre_ping=True,
    )


@contextmanager
def open_session(engine: Engine) -> Iterator[Session]:
    """One unit of work: commits at the end, rolls back on any error."""
    with Session(engine, expire_on_commit=False) as session, session.begin():
        yield session
