"""The database of the settings, opened for as long as a task needs it."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from serving.database.sessions import create_database_engine
from serving.settings import get_settings


@contextmanager
def open_database() -> Iterator[Engine]:
    """Open an engine of DATABASE_URL, and dispose of it at the end, also after an error."""
    engine = create_database_engine(get_settings().database_url.get_secret_value())
    try:
        yield engine
    finally:
        engine.dispose()
