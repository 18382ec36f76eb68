"""The records behind the rows: Delta tables `parts/<table>`, and what has been retracted.

A record of a resource is kept with the resource's id (a keyed hash), version and device, so that
a later record can replace it, join it or take it back. Of an individual who has records here, all
rows of the table are made of them; of others the rows stand for themselves. Rows of table files
are kept here too for such individuals, as records without a resource.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import polars as pl

from flows.lake.merging import merge_records
from flows.lake.tables import (
    append_rows,
    create_table,
    erase_matching,
    has_table,
    locate_table,
    scan_records,
)
from flows.sources.contract import (
    COMMON_LAKE_COLUMNS,
    INSTANT,
    PART_COLUMNS,
    TABLES,
    ColumnTypes,
    Table,
)
from flows.sources.parse import parse_instant
from flows.sources.versions import WITHDRAWN

PARTS = "parts"
RETRACTIONS = "retractions"
#: `slot` tells the rows of one resource apart: a response may answer several instruments.
SLOT: ColumnTypes = {"slot": pl.String}
RETRACTION_SCHEMA: ColumnTypes = {
    "source_id": pl.String,
    "anonymized_id": pl.String,
    "version_number": pl.Int64,
    "version_at": INSTANT,
    "version_rank": pl.Int8,
    "retracted_at": INSTANT,
}
#: Name of a table row among the records: no resource's hash begins so.
ROW = "row "
PART_KEY = ("bucket", "anonymized_id", "source_id", "slot")
VERSION = ("version_number", "version_at", "version_rank")


def name_parts(table: str) -> str:
    return f"{PARTS}/{table}"


def schema_of_parts(table: Table) -> ColumnTypes:
    return COMMON_LAKE_COLUMNS | PART_COLUMNS | SLOT | table.columns


def scan_parts(lake_url: str, table: Table, buckets: Sequence[int]) -> pl.LazyFrame:
    """Return all records kept in some buckets."""
    records = scan_records(lake_url, name_parts(table.name), schema_of_parts(table))
    return records.filter(pl.col("bucket").is_in(buckets))


def read_parts(
    lake_url: str, table: Table, buckets: Sequence[int], people: pl.Series, retracted: pl.Series
) -> pl.DataFrame:
    """Return the records of `people`, and of everyone with a retracted resource."""
    records = scan_parts(lake_url, table, buckets)
    hit = records.filter(pl.col("source_id").is_in(retracted.implode()))
    concerned = pl.concat(
        [hit.select("anonymized_id"), people.to_frame("anonymized_id").lazy()]
    ).unique()
    return records.join(concerned, on="anonymized_id", how="semi").collect()


def find_retracted_buckets(lake_url: str, table: Table, retracted: pl.Series) -> set[int]:
    """Return the buckets in which a record of a retracted resource is kept."""
    if retracted.is_empty():
        return set()
    records = scan_records(lake_url, name_parts(table.name), schema_of_parts(table))
    hit = records.filter(pl.col("source_id").is_in(retracted.implode())).select("bucket")
    return set(hit.unique().collect()["bucket"])


def write_parts(
    lake_url: str, table: Table, buckets: Sequence[int], before: pl.DataFrame, now: pl.DataFrame
) -> None:
    """Make the records of individuals in `before` and `now` what `now` says; one commit.

    `before` is what the table holds of them. Nothing is written where nothing differs.
    """
    schema = schema_of_parts(table)
    names = list(schema)
    now = now.select(pl.col(name).cast(kind) for name, kind in schema.items())
    fresh = now.join(before.select(names), on=names, how="anti", nulls_equal=True)
    gone = before.join(now, on=list(PART_KEY), how="anti")
    if fresh.is_empty() and gone.is_empty():
        return
    location = name_parts(table.name)
    create_table(lake_url, location, schema)
    replaced = before.join(fresh, on=list(PART_KEY), how="semi")
    if gone.is_empty() and replaced.is_empty():
        append_rows(lake_url, location, fresh)
        return
    merge_records(lake_url, location, buckets, PART_KEY, fresh, gone.select(names))


def read_retractions(lake_url: str) -> pl.DataFrame:
    return scan_records(lake_url, RETRACTIONS, RETRACTION_SCHEMA).collect()


def date_retractions(lake_url: str, met: list[dict[str, Any]], now: datetime) -> pl.Series:
    """Store the retractions of a drop; return the source_ids of all of them.

    One without a version takes back every version up to now: the moment it was first met stays.
    """
    if not met:
        return pl.Series(dtype=pl.String)
    rows = pl.DataFrame(met, schema=dict.fromkeys(met[0], pl.String) | MET)
    moment = pl.lit(now).cast(INSTANT)
    parsed = rows.with_columns(
        version_at=parse_instant("version_at", pl.String(), now).value, retracted_at=moment
    )
    undated = pl.col("version_at").is_null() & pl.col("version_number").is_null()
    told = parsed.with_columns(is_undated=undated & (pl.col("version_rank") == WITHDRAWN))
    stored_retractions = read_retractions(lake_url)
    seen = stored_retractions.select("source_id").unique().with_columns(seen=pl.lit(True))
    fresh = (
        told.join(stored_retractions, on=["source_id", *VERSION], how="anti", nulls_equal=True)
        .join(seen, on="source_id", how="left")
        .filter(~(pl.col("is_undated") & pl.col("seen").fill_null(False)))
        .with_columns(version_at=pl.when("is_undated").then(moment).otherwise("version_at"))
        .join(_name_owners(lake_url, told), on="source_id", how="left")
        .with_columns(anonymized_id=pl.coalesce("anonymized_id", "owner"))
        .unique(["source_id", *VERSION], maintain_order=True)
        .select(pl.col(name).cast(kind) for name, kind in RETRACTION_SCHEMA.items())
    )
    if fresh.height:
        create_table(lake_url, RETRACTIONS, RETRACTION_SCHEMA, partition_by=[])
        append_rows(lake_url, RETRACTIONS, fresh)
    return told["source_id"].unique()


def _name_owners(lake_url: str, told: pl.DataFrame) -> pl.DataFrame:
    """Return whose the resources are: a deletion does not say it, an erasure needs it."""
    nameless = told.filter(pl.col("anonymized_id").is_null())["source_id"]
    sources = _scan_owners(lake_url).filter(pl.col("source_id").is_in(nameless.implode()))
    owners = sources.unique("source_id").rename({"anonymized_id": "owner"})
    return owners.collect()


MET: dict[str, Any] = {"version_number": pl.Int64, "version_rank": pl.Int8}


def _scan_owners(lake_url: str) -> pl.LazyFrame:
    """Return source_id and anonymized_id of every record kept."""
    whose: ColumnTypes = {"source_id": pl.String, "anonymized_id": pl.String}
    return pl.concat(scan_sources(lake_url, name, whose) for name in TABLES)


def scan_sources(lake_url: str, table: str, columns: ColumnTypes) -> pl.LazyFrame:
    """Return some columns of all records kept of a table."""
    return scan_records(lake_url, name_parts(table), columns).select(list(columns))


def erase_retractions(lake_url: str, person: str) -> int:
    """Remove the retractions of an individual's resources; return how many."""
    location = locate_table(lake_url, RETRACTIONS)
    if not has_table(lake_url, RETRACTIONS):
        return 0
    names = _scan_owners(lake_url).filter(pl.col("anonymized_id") == person)
    theirs = names.select("source_id").unique().collect()["source_id"]
    retractions = read_retractions(lake_url)
    is_theirs = (pl.col("anonymized_id") == person) | pl.col("source_id").is_in(theirs.implode())
    source_ids = retractions.filter(is_theirs.fill_null(False))["source_id"].unique().to_list()
    return erase_matching(location, "source_id", source_ids)
