"""Individuals who turn out to be one: what was kept under the id that is given up moves over."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import polars as pl
from sqlalchemy import Engine, select
from sqlalchemy.dialects.postgresql import insert

from feature_repo.pseudonyms import assign_bucket
from flows.lake.parts import name_parts, schema_of_parts
from flows.lake.tables import delete_rows, scan_records, scan_table, set_rows_aside
from flows.sources.contract import Table
from serving.database.sessions import open_session
from serving.database.tables import Consent

MOVED = "the person's id was replaced by another: the row stands there"


def move_consents(engine: Engine, replaced: Mapping[str, str], now: datetime) -> int:
    """Give the consents of replaced individuals, withdrawn ones too, to who replaces them."""
    moved = 0
    with open_session(engine) as session:
        statement = select(Consent).where(Consent.anonymized_id.in_(list(replaced)))
        for consent in session.scalars(statement).all():
            values = {column.key: getattr(consent, column.key) for column in Consent.__table__.c}
            values["anonymized_id"] = replaced[consent.anonymized_id]
            copied = session.execute(insert(Consent).values(values).on_conflict_do_nothing())
            moved += _count(copied)
            if consent.withdrawn_at is None:
                consent.withdrawn_at = now
    return moved


def _count(result: Any) -> int:
    return max(0, int(result.rowcount))


def take_records(lake_url: str, table: Table, replaced: Mapping[str, str]) -> pl.DataFrame:
    """Take what a table holds of replaced individuals out of it; return it under the other id.

    The records have the columns of staged ones. Rows are set aside, so that nothing is lost when
    a run is cut off before they land again.
    """
    old = list(replaced)
    schema = schema_of_parts(table)
    kept = (
        scan_records(lake_url, name_parts(table.name), schema)
        .filter(pl.col("anonymized_id").is_in(old))
        .collect()
    )
    rows = scan_table(lake_url, table.name).filter(pl.col("anonymized_id").is_in(old)).collect()
    plain = rows.join(kept, on="anonymized_id", how="anti")
    # A person has one row of people: that of the id that stays.
    alone = plain if table.key else plain.clear()
    moved = pl.concat([kept, alone], how="diagonal_relaxed") if kept.height else alone
    if rows.height:
        set_rows_aside(lake_url, table.name, rows.with_columns(reason=pl.lit(MOVED)))
    if kept.height:
        delete_rows(lake_url, name_parts(table.name), old)
    new = pl.col("anonymized_id").replace_strict(dict(replaced), return_dtype=pl.String)
    buckets = {pseudonym: assign_bucket(pseudonym) for pseudonym in replaced.values()}
    return moved.with_columns(anonymized_id=new).with_columns(
        bucket=pl.col("anonymized_id").replace_strict(buckets, return_dtype=pl.Int32)
    )
