"""Merging rows into the lake's tables: what is new, what is corrected, what stands.

One commit per group of buckets, and none where nothing changes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import polars as pl

from flows.lake.tables import append_rows, conform, create_table, open_table, scan_table
from flows.runtime.counts import Counts
from flows.sources.contract import TABLES, Table


class DuplicateKeyError(ValueError):
    """Rows to merge hold a key twice; the message gives their number only."""


@dataclass(frozen=True)
class MergeCounts(Counts):
    """Results of merged rows."""

    inserted: int = 0
    corrected: int = 0
    unchanged: int = 0


def merge_rows(lake_url: str, table: str, frame: pl.DataFrame) -> MergeCounts:
    """Insert new rows, correct changed ones and leave equal ones alone; idempotent.

    `frame` has the table's columns; `available_at` is when a row could first have been
    known. A corrected row becomes available when it is ingested, because the
    correction was not known before. One commit per bucket that changes; none if nothing does.
    Raises DuplicateKeyError when `frame` has two rows of one key.
    """
    contract = TABLES[table]
    rows = conform(frame, contract.schema)
    _refuse_duplicate_keys(contract, rows)
    create_table(lake_url, table, contract.schema)
    counts = MergeCounts()
    for bucket in sorted(rows["bucket"].unique()):
        some = rows.filter(pl.col("bucket") == bucket)
        landed = read_known_rows(lake_url, contract, [bucket], some)
        later = _date_corrections(contract, some, landed)
        counts += merge_buckets(lake_url, contract, [bucket], later, landed)
    return counts


def _date_corrections(table: Table, rows: pl.DataFrame, landed: pl.DataFrame) -> pl.DataFrame:
    key = ["anonymized_id", *table.key]
    is_known = landed.select(key).with_columns(known=pl.lit(True))
    corrected_at = pl.max_horizontal("available_at", "ingested_at")
    return rows.join(is_known, on=key, how="left").with_columns(
        available_at=pl.when("known").then(corrected_at).otherwise("available_at")
    )


def merge_buckets(
    lake_url: str,
    table: Table,
    buckets: Sequence[int],
    rows: pl.DataFrame,
    landed: pl.DataFrame,
    adds: bool = False,
) -> MergeCounts:
    """Write those rows of some buckets that differ from what `landed` holds; one commit.

    With `adds`, what a row leaves out stands as it was, and a row that only fills what was
    missing does not count as a correction of what was known: it is available as it says.
    """
    conformed = conform(rows, table.schema)
    new, changed = _compare(table, conformed, landed, adds)
    counts = MergeCounts(new.height, changed.height, rows.height - new.height - changed.height)
    if new.height or changed.height:
        create_table(lake_url, table.name, table.schema)
    if changed.height:
        _merge_changes(lake_url, table, buckets, pl.concat([new, changed]))
    elif new.height:
        append_rows(lake_url, table.name, new.sort("anonymized_id", *table.key))
    return counts


def read_known_rows(
    lake_url: str, table: Table, buckets: Sequence[int], rows: pl.DataFrame
) -> pl.DataFrame:
    """Return the landed rows of the individuals in `rows`."""
    people = rows.lazy().select(pl.col("anonymized_id").unique())
    landed = scan_table(lake_url, table.name).filter(pl.col("bucket").is_in(buckets))
    return landed.join(people, on="anonymized_id", how="semi").collect(engine="streaming")


def _compare(
    table: Table, rows: pl.DataFrame, landed: pl.DataFrame, adds: bool
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the rows of `rows` that are new, and those that differ from what is known."""
    key = ["anonymized_id", *table.key]
    values = [name for name in table.columns if name not in table.key]
    before = landed.select(*key, *values, "available_at").with_columns(known=pl.lit(True))
    joined = rows.join(before, on=key, how="left", suffix="_before")
    if adds:
        joined = joined.with_columns(pl.coalesce(name, f"{name}_before") for name in values)
    differs = _any(pl.col(name).ne_missing(pl.col(f"{name}_before")) for name in values)
    corrects = _any(pl.col(name) != pl.col(f"{name}_before") for name in values).fill_null(False)
    is_known = pl.col("known").is_not_null()
    new = joined.filter(~is_known).select(rows.columns)
    changed = joined.filter(is_known & differs)
    if adds:
        known_since = pl.max_horizontal("available_at", "available_at_before")
        corrected_at = pl.max_horizontal("available_at", "ingested_at")
        changed = changed.with_columns(
            available_at=pl.when(corrects).then(corrected_at).otherwise(known_since)
        )
    return new, changed.select(rows.columns)


def _any(conditions: Iterable[pl.Expr]) -> pl.Expr:
    return pl.any_horizontal(pl.lit(False), *conditions)


def _merge_changes(lake_url: str, table: Table, buckets: Sequence[int], rows: pl.DataFrame) -> None:
    conditions = _match(buckets, ("bucket", "anonymized_id", *table.key))
    (
        open_table(lake_url, table.name)
        .merge(rows, conditions, source_alias="source", target_alias="target")
        .when_matched_update_all()
        .when_not_matched_insert_all()
        .execute()
    )


def merge_records(
    lake_url: str,
    name: str,
    buckets: Sequence[int],
    key: tuple[str, ...],
    fresh: pl.DataFrame,
    gone: pl.DataFrame,
) -> None:
    """Insert or update `fresh` records and delete `gone` ones in one commit."""
    marked = pl.concat(
        [fresh.with_columns(is_gone=pl.lit(False)), gone.with_columns(is_gone=pl.lit(True))]
    )
    conditions = _match(buckets, key)
    columns = {column: f"source.{column}" for column in fresh.columns}
    (
        open_table(lake_url, name)
        .merge(marked, conditions, source_alias="source", target_alias="target")
        .when_matched_delete("source.is_gone")
        .when_matched_update(columns)
        .when_not_matched_insert(columns, predicate="NOT source.is_gone")
        .execute()
    )


def _match(buckets: Sequence[int], key: Iterable[str]) -> str:
    """Return the condition under which a row of a table is one of the rows to merge."""
    # The literal buckets let Delta skip every other partition's files.
    literal = f"target.bucket IN ({', '.join(map(str, buckets))})"
    return " AND ".join([literal, *(f"target.{name} = source.{name}" for name in key)])


def _refuse_duplicate_keys(table: Table, rows: pl.DataFrame) -> None:
    repeated = rows.height - rows.select(pl.struct("anonymized_id", *table.key).n_unique()).item()
    if repeated > 0:
        raise DuplicateKeyError(f"{table.name}: {repeated} rows repeat the key of another")
