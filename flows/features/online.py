"""Rows of feature tables into the online store, bucket by bucket, of who consents now.

Feast's own materialisation takes all individuals of a view into memory, and ignores consents.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import polars as pl

from feature_repo.consent_terms import SCREENING
from feature_repo.feast_library import FeatureStore, FeatureView
from feature_repo.feature_tables import CREATED_TIMESTAMP, EVENT_TIMESTAMP
from feature_repo.online_store import REPOSITORY, read_store_configuration
from feature_repo.postgres_writer import PostgresWriter
from feature_repo.stored_views import JOIN_KEY
from flows.lake.consents import read_consented_types
from flows.runtime.database import open_database

#: What is online is there to be screened with.
PURPOSES = (SCREENING,)


class OnlineWriter(Protocol):
    """Writes rows of a view into the online store, one an individual."""

    def write(self, view: str, features: Sequence[str], rows: pl.DataFrame) -> object: ...

    def reserve_space_for_updates(self, views: Sequence[str]) -> None: ...


class FeastWriter:
    """Writes through Feast's package, which knows every kind of online store."""

    def __init__(self) -> None:
        self._store = FeatureStore(repo_path=str(REPOSITORY))

    def write(self, view: str, features: Sequence[str], rows: pl.DataFrame) -> None:
        columns = [JOIN_KEY, EVENT_TIMESTAMP, CREATED_TIMESTAMP, *features]
        self._store.write_to_online_store(view, rows.select(columns).to_pandas())

    def reserve_space_for_updates(self, views: Sequence[str]) -> None:
        """Feast leaves the layout of tables to the store."""


@contextmanager
def open_writer() -> Iterator[OnlineWriter]:
    """Yield the writer of the online store of feature_store.yaml: PostgreSQL's rows directly."""
    if read_store_configuration()["online_store"]["type"] != "postgres":
        yield FeastWriter()
        return
    writer = PostgresWriter()
    try:
        yield writer
    finally:
        writer.close()


def read_consents(bucket: int) -> pl.DataFrame:
    """Return who of a bucket consents to screening now, with a Boolean per data type."""
    with open_database() as engine:
        return read_consented_types(engine, bucket=bucket)


def write_online(writer: OnlineWriter, view: FeatureView, rows: pl.DataFrame) -> int:
    """Put the rows of a view that hold a value online, one an individual; return how many."""
    names = [feature.name for feature in view.features]
    # A row without a value is empty, and Feast refuses to write only such rows.
    filled = rows.filter(pl.any_horizontal(pl.col(names).is_not_null()))
    if filled.height:
        writer.write(view.name, names, filled)
    return filled.height
