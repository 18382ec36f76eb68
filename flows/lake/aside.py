"""Data that are looked at and never kept: consents that one connection alone can see.

External validation reads a drop into a temporary lake. Its consents must not reach the table of
consents either: people of another site would count as consenting here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import polars as pl
from sqlalchemy import Engine, create_engine, event, select
from sqlalchemy.pool import StaticPool

from feature_repo.stored_views import JOIN_KEY
from flows.lake.tables import scan_table
from flows.sources.contract import CONSENTS, TABLES
from serving.database.sessions import open_session
from serving.database.tables import Consent

#: Individuals asked about in one statement.
PEOPLE_PER_STATEMENT = 10_000


@contextmanager
def open_consents_aside(database_url: str) -> Iterator[Engine]:
    """Open an engine whose table of consents is temporary and empty; no other table exists.

    The table belongs to the one connection. Should that break, the next one begins with an empty
    table: nothing written here can ever reach the consents of this state.
    """
    engine = create_engine(database_url, poolclass=StaticPool, hide_parameters=True)
    event.listen(engine, "connect", _make_temporary_consents)
    try:
        yield engine
    finally:
        engine.dispose()


def _make_temporary_consents(connection: Any, _record: Any) -> None:
    name = Consent.__tablename__
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TEMPORARY TABLE {name} (LIKE public.{name} INCLUDING ALL)")
        cursor.execute("SET search_path TO pg_temp")
    connection.commit()


def find_known_people(engine: Engine, lake_url: str, people: pl.Series) -> pl.Series:
    """Return those of `people` of whom this state holds data or a consent, also an ended one."""
    asked = people.unique()
    landed = [
        scan_table(lake_url, name)
        .filter(pl.col(JOIN_KEY).is_in(asked.implode()))
        .select(pl.col(JOIN_KEY).unique())
        .collect(engine="streaming")[JOIN_KEY]
        for name in TABLES
        if name != CONSENTS.name
    ]
    stated = pl.Series(JOIN_KEY, _find_in_consents(engine, asked.to_list()), dtype=pl.String)
    return pl.concat([*landed, stated]).unique()


def _find_in_consents(engine: Engine, people: list[str]) -> list[str]:
    with_consent: list[str] = []
    with open_session(engine) as session:
        for first in range(0, len(people), PEOPLE_PER_STATEMENT):
            some = people[first : first + PEOPLE_PER_STATEMENT]
            statement = select(Consent.anonymized_id).where(Consent.anonymized_id.in_(some))
            with_consent.extend(session.scalars(statement.distinct()))
    return with_consent
