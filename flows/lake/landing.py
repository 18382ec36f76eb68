"""Staged records of one table into the lake: joined with what has landed before.

Individuals of whom records of resources are known have all their rows made again of all of them
(parts.py); the rows of others add to what has landed column by column. Rows that no record stands
behind any more are set aside. A run that is cut off lands the rest when it is run again: the
records are written first, and rows are compared with the lake, not with what was there before.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from flows.lake.joined import explain_difference, join_rows, list_details
from flows.lake.joining import join_records
from flows.lake.merging import MergeCounts, merge_buckets, read_known_rows
from flows.lake.parts import (
    ROW,
    name_parts,
    read_parts,
    scan_parts,
    schema_of_parts,
    write_parts,
)
from flows.lake.standing import DIFFERENT_ROWS, Current, choose_current
from flows.lake.tables import has_table, set_rows_aside
from flows.sources.contract import INSTANT, PART_COLUMNS, SURVEYS, Table

NO_LONGER = "no record stands behind it: retracted, replaced, or joined with another row"


@dataclass
class Landing:
    """Results of staged records, and of rows that had landed before.

    `combined`: records that are part of another's row; `duplicate`: repetitions; `superseded`:
    older or retracted versions. `rejected`: records with source, row_number and reason.
    `set_aside`: rows that left the table; `recomputed`: rows that changed without a record.
    """

    merged: MergeCounts = field(default_factory=MergeCounts)
    combined: int = 0
    duplicate: int = 0
    superseded: int = 0
    set_aside: int = 0
    recomputed: int = 0
    rejected: list[pl.DataFrame] = field(default_factory=list)


def land_records(
    lake_url: str,
    table: Table,
    buckets: Sequence[int],
    staged: pl.DataFrame,
    retractions: pl.DataFrame,
    fresh_retractions: pl.Series,
    now: datetime,
) -> Landing:
    """Land the records of some buckets; idempotent, and independent of the order of drops.

    `staged` has the columns of check_rows and `source`; `retractions` are all that are known,
    `fresh_retractions` the source_ids of those that this run met.
    """
    new = _stamp(table, staged, now)
    landing = Landing()
    people = new.filter(pl.col("source_id").is_not_null())["anonymized_id"].unique()
    stored = _read_known(lake_url, table, buckets, people, new, fresh_retractions)
    explicit = pl.concat([people, stored["anonymized_id"].unique()]).unique()
    is_explicit = pl.col("anonymized_id").is_in(explicit.implode())
    plain = new.filter(~is_explicit).with_row_index("pid")
    if plain.height:
        _land_plain(lake_url, table, buckets, plain, landing)
    if explicit.len():
        made = new.filter(is_explicit).with_row_index("pid")
        _land_made(lake_url, table, buckets, made, stored, explicit, retractions, now, landing)
    return landing


def _stamp(table: Table, staged: pl.DataFrame, now: datetime) -> pl.DataFrame:
    slot = pl.col("instrument") if table is SURVEYS else pl.lit("")
    return staged.with_columns(ingested_at=pl.lit(now).cast(INSTANT), slot=slot.alias("slot"))


def _read_known(
    lake_url: str,
    table: Table,
    buckets: Sequence[int],
    people: pl.Series,
    new: pl.DataFrame,
    fresh_retractions: pl.Series,
) -> pl.DataFrame:
    """Return the records known of everyone concerned, nothing where none were ever kept."""
    if not has_table(lake_url, name_parts(table.name)):
        return pl.DataFrame(schema=schema_of_parts(table))
    others = new.filter(~pl.col("anonymized_id").is_in(people.implode()))["anonymized_id"]
    if others.len():
        kept = scan_parts(lake_url, table, buckets).select("anonymized_id").unique()
        listed = kept.filter(pl.col("anonymized_id").is_in(others.unique().implode()))
        people = pl.concat([people, listed.collect()["anonymized_id"]])
    return read_parts(lake_url, table, buckets, people, fresh_retractions)


# Individuals whose rows stand for themselves


def _land_plain(
    lake_url: str, table: Table, buckets: Sequence[int], new: pl.DataFrame, landing: Landing
) -> None:
    key = ["anonymized_id", *table.key]
    repeats = new.select(pl.struct(key).is_duplicated()).to_series()
    rows = new.filter(~repeats)
    if repeats.any():
        rows = pl.concat([rows, _join_repeats(table, new.filter(repeats), landing)])
    landed = read_known_rows(lake_url, table, buckets, rows)
    landing.merged += merge_buckets(lake_url, table, buckets, rows, landed, adds=True)


def _join_repeats(table: Table, repeated: pl.DataFrame, landing: Landing) -> pl.DataFrame:
    joined = join_rows(table, repeated)
    landing.rejected.append(_place(repeated, joined.rejected))
    kept = repeated.join(joined.rejected, on="pid", how="anti")
    distinct = kept.unique(["anonymized_id", *table.columns], maintain_order=True)
    landing.duplicate += kept.height - distinct.height
    landing.combined += distinct.height - joined.rows.height
    moment = repeated["ingested_at"][0]
    columns = {"ingested_at": pl.lit(moment).cast(INSTANT)}
    absent = {name: pl.lit(None) for name in repeated.columns if name not in joined.rows.columns}
    return joined.rows.with_columns(**{**absent, **columns}).select(
        pl.col(name).cast(repeated.schema[name]) for name in repeated.columns
    )


def _place(records: pl.DataFrame, rejected: pl.DataFrame) -> pl.DataFrame:
    """Return source, row_number and reason of rejected records that are of this drop."""
    placed = records.join(rejected, on="pid")
    return placed.filter(pl.col("source").is_not_null()).select("source", "row_number", "reason")


# Individuals whose rows are made of records


def _land_made(
    lake_url: str,
    table: Table,
    buckets: Sequence[int],
    new: pl.DataFrame,
    stored: pl.DataFrame,
    people: pl.Series,
    retractions: pl.DataFrame,
    now: datetime,
    landing: Landing,
) -> None:
    landed = read_known_rows(lake_url, table, buckets, people.to_frame("anonymized_id"))
    adopted = _adopt(table, landed, stored)
    columns = [*schema_of_parts(table), "pid"]
    before = _name_rows(table, pl.concat([stored, adopted.select(stored.columns)]))
    before = before.with_row_index("pid", offset=new.height)
    records = _name_rows(table, new).select(columns)
    current = choose_current(table, before.select(columns), records, retractions, now)
    write_parts(lake_url, table, buckets, stored, current.records)
    joined = join_records(table, current.records)
    rejected = pl.concat([current.rejected, joined.rejected]).with_columns(
        reason=pl.col("reason").replace(DIFFERENT_ROWS, explain_difference(table))
    )
    landing.rejected.append(_place(new, rejected))
    # A row that no new record stands behind can differ only by what was taken away.
    is_new = pl.col("pid") < new.height
    touched = joined.members.group_by("rid").agg(is_new.any().alias("touched"))
    rows = joined.rows.join(touched, on="rid").with_columns(
        ingested_at=pl.lit(now).cast(INSTANT),
        available_at=pl.when("touched")
        .then("available_at")
        .otherwise(pl.max_horizontal("available_at", pl.lit(now).cast(INSTANT))),
    )
    key = ["anonymized_id", *table.key]
    gone = landed.join(rows, on=key, how="anti", nulls_equal=True)
    if gone.height:
        reason = gone.with_columns(reason=pl.lit(NO_LONGER))
        landing.set_aside += set_rows_aside(lake_url, table.name, reason)
    _merge_made(lake_url, table, buckets, rows, landed, landing)
    _count_records(current, joined.members, new.height, landing)


def _merge_made(
    lake_url: str,
    table: Table,
    buckets: Sequence[int],
    rows: pl.DataFrame,
    landed: pl.DataFrame,
    landing: Landing,
) -> None:
    """Write what changed, and count rows by whether a record of this drop is behind them."""
    counts = merge_buckets(lake_url, table, buckets, rows, landed, adds=False)
    without = rows.filter(~pl.col("touched"))
    details = list_details(table)
    same = without.join(
        landed, on=["anonymized_id", *table.key, *details], how="semi", nulls_equal=True
    )
    changed = without.height - same.height
    landing.recomputed += changed
    landing.merged += MergeCounts(
        counts.inserted, counts.corrected - changed, counts.unchanged - same.height
    )


def _count_records(current: Current, members: pl.DataFrame, new: int, landing: Landing) -> None:
    is_new = pl.col("pid") < new
    landing.superseded += current.superseded.height
    landing.duplicate += current.repeated.height
    behind = members.filter(is_new)
    landing.combined += behind.height - behind["rid"].n_unique()


def _adopt(table: Table, landed: pl.DataFrame, stored: pl.DataFrame) -> pl.DataFrame:
    """Return as records the landed rows of those of whom no record was kept until now."""
    unknown = landed.join(stored.select("anonymized_id").unique(), on="anonymized_id", how="anti")
    slot = pl.col("instrument") if table is SURVEYS else pl.lit("")
    return unknown.with_columns(
        slot=slot.alias("slot"),
        **{name: pl.lit(None, dtype=kind) for name, kind in PART_COLUMNS.items()},
    )


def _name_rows(table: Table, records: pl.DataFrame) -> pl.DataFrame:
    """Give records without a resource the name of their key."""
    key = [pl.col(name).cast(pl.String) for name in table.key]
    named = pl.concat_str([pl.lit(ROW), *key], separator="|")
    return records.with_columns(source_id=pl.coalesce("source_id", named))
