"""Who consents to what now, read from PostgreSQL, and one ingestion at a time."""

from collections.abc import Collection, Iterator
from datetime import datetime

import polars as pl
from sqlalchemy import (
    ColumnElement,
    Engine,
    Integer,
    Text,
    and_,
    case,
    cast,
    func,
    literal,
    select,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import ARRAY, BIT
from sqlalchemy.orm import InstrumentedAttribute

from feature_repo.consent_terms import DATA_TYPES, PURPOSES
from feature_repo.pseudonyms import BUCKET_COUNT
from flows.sources.contract import ColumnTypes
from serving.consent.in_force import select_in_force
from serving.database.clock import DATABASE_TIME
from serving.database.sessions import open_session
from serving.database.tables import Consent


def read_consented_types(
    engine: Engine,
    now: datetime | ColumnElement[datetime] = DATABASE_TIME,
    purposes: Collection[str] = PURPOSES,
    bucket: int | None = None,
) -> pl.DataFrame:
    """Return per individual with a consent in force for one of `purposes`, the data types.

    Columns: anonymized_id and a Boolean per data type. With `bucket`, of that bucket only.
    """
    statement = select(Consent.anonymized_id, Consent.data_types).where(_is_in_force(now, purposes))
    if bucket is not None:
        statement = statement.where(is_in_bucket(Consent.anonymized_id, bucket))
    with open_session(engine) as session:
        rows = [(row[0], list(row[1])) for row in session.execute(statement)]
    schema: ColumnTypes = {"anonymized_id": pl.String, "data_types": pl.List(pl.String)}
    granted = pl.DataFrame(rows, schema=schema, orient="row")
    return granted.group_by("anonymized_id").agg(
        pl.col("data_types").list.contains(name).any().alias(name) for name in DATA_TYPES
    )


def _is_in_force(
    now: datetime | ColumnElement[datetime], purposes: Collection[str]
) -> ColumnElement[bool]:
    return and_(
        select_in_force(now),
        type_coerce(Consent.purposes, ARRAY(Text)).overlap(list(purposes)),
        func.cardinality(Consent.data_types) > 0,
    )


def is_in_bucket(anonymized_id: InstrumentedAttribute[str], bucket: int) -> ColumnElement[bool]:
    """Return the SQL of `assign_bucket(anonymized_id) == bucket`; False for no pseudonym."""
    digits = literal("x").concat(func.substr(anonymized_id, 1, 4))
    of_pseudonym = cast(cast(digits, BIT(16)), Integer) % BUCKET_COUNT == bucket
    # One row with another id would make the cast fail, and with it every flow.
    return case((anonymized_id.regexp_match("^[0-9a-f]{32}$"), of_pseudonym), else_=False)


def page_consenting(
    engine: Engine, bucket: int, purpose: str, size: int
) -> Iterator[tuple[str, ...]]:
    """Yield pages of at most `size` individuals of a bucket with a consent in force, in order.

    Each page is read when it is needed, so a consent that ended meanwhile is not in it, and
    memory holds one page.
    """
    after = ""
    while True:
        statement = (
            select(Consent.anonymized_id)
            .where(
                Consent.anonymized_id > after,
                is_in_bucket(Consent.anonymized_id, bucket),
                _is_in_force(DATABASE_TIME, [purpose]),
            )
            .distinct()
            .order_by(Consent.anonymized_id)
            .limit(size)
        )
        with open_session(engine) as session:
            page = tuple(session.scalars(statement))
        if not page:
            return
        yield page
        after = page[-1]


def keep_consented(
    rows: pl.DataFrame, data_type: str | None, consented: pl.DataFrame
) -> pl.DataFrame:
    """Return the rows of individuals who consent to `data_type` (None: to any)."""
    people = consented if data_type is None else consented.filter(pl.col(data_type))
    return rows.join(people.select("anonymized_id"), on="anonymized_id", how="semi")
