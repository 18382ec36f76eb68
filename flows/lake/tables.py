"""The lake: Delta tables by pseudonym, partitioned by hash bucket, under `LAKE_URL`.

Every change is one Delta commit, so a process killed at any moment leaves the table as it
was before or after, never in between. The table's version and digest are what lineage cites.
"""

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import polars as pl
from deltalake import CommitProperties, DeltaTable, Schema, write_deltalake

from feature_repo.pseudonyms import PSEUDONYM_PATTERN
from flows.sources.contract import COMMON_LAKE_COLUMNS, INSTANT, TABLES, ColumnTypes

QUARANTINE = "quarantine"
#: Folder of the rows that validation has taken out of a table.
SET_ASIDE = "set_aside"
QUARANTINE_SCHEMA: ColumnTypes = {
    "run_id": pl.String,
    "table": pl.String,
    "source_file": pl.String,
    "source_digest": pl.String,
    "row_number": pl.Int64,
    "reason": pl.String,
    "quarantined_at": INSTANT,
}
#: What makes a quarantined row the same as one of an earlier run over the same file.
QUARANTINE_KEY = ("table", "source_digest", "row_number", "reason")


HEXADECIMAL = re.compile(r"[0-9a-f]+")
LOG_RETENTION, NO_RETENTION = "delta.logRetentionDuration", "interval 0 seconds"


@dataclass(frozen=True)
class TableState:
    """What lineage cites: a table's version, its rows, and the digest of its files."""

    name: str
    version: int | None
    rows: int
    digest: str


def locate_table(lake_url: str, name: str) -> str:
    """Return the path or URL of a table (`quarantine`, `features/<view>` included)."""
    return f"{lake_url.rstrip('/')}/{name}"


def scan_table(lake_url: str, name: str, bucket: int | None = None) -> pl.LazyFrame:
    """Return the rows of a table, of one bucket if given; an absent table has none.

    Columns that an older lake does not have yet are null.
    """
    return scan_records(lake_url, name, _schema_of(name), bucket)


def scan_records(
    lake_url: str, name: str, schema: ColumnTypes, bucket: int | None = None
) -> pl.LazyFrame:
    """Return the rows of a Delta table with the columns of `schema`; an absent one has none."""
    if not has_table(lake_url, name):
        return pl.LazyFrame(schema=schema)
    rows = pl.scan_delta(locate_table(lake_url, name), storage_options=storage_options())
    present = rows.collect_schema().names()
    absent = [
        pl.lit(None, dtype=schema[name]).alias(name) for name in schema if name not in present
    ]
    rows = rows.with_columns(absent).select(list(schema)) if absent else rows
    return rows if bucket is None else rows.filter(pl.col("bucket") == bucket)


def get_version(lake_url: str, name: str) -> int | None:
    """Return the version of a table, None when there is no such table."""
    return open_table(lake_url, name).version() if has_table(lake_url, name) else None


def has_table(lake_url: str, name: str) -> bool:
    """Return whether a table exists; its log is not read."""
    location = locate_table(lake_url, name)
    return DeltaTable.is_deltatable(location, storage_options=storage_options())


def describe_table(lake_url: str, name: str) -> TableState:
    """Return version, row count and digest of a table.

    The digest covers names, sizes and statistics of the table's live files: same digest,
    same files. It reads the Delta log only, not the rows.
    """
    version = get_version(lake_url, name)
    if version is None:
        return TableState(name, None, 0, "")
    actions = pl.DataFrame(open_table(lake_url, name).get_add_actions(flatten=True)).sort("path")
    rows = int(actions["num_records"].sum()) if actions.height else 0
    stated = [f"{path} {size}" for path, size in actions.select("path", "size_bytes").iter_rows()]
    digest = hashlib.sha256("\n".join([f"{name} {rows}", *stated]).encode()).hexdigest()
    return TableState(name, version, rows, digest)


def count_rows(lake_url: str, name: str) -> dict[int, int]:
    """Return how many rows a table holds, by bucket; only its Delta log is read."""
    if not has_table(lake_url, name):
        return {}
    actions = pl.DataFrame(open_table(lake_url, name).get_add_actions(flatten=True))
    return dict(actions.group_by("partition.bucket").agg(pl.col("num_records").sum()).iter_rows())


def append_quarantine(lake_url: str, rows: pl.DataFrame) -> int:
    """Add rejected rows and return how many were not there from an earlier run.

    `rows` has the columns of QUARANTINE_SCHEMA.
    """
    if rows.is_empty():
        return 0
    create_table(lake_url, QUARANTINE, QUARANTINE_SCHEMA, partition_by=[])
    digests = rows["source_digest"].unique().to_list()
    quarantined = scan_table(lake_url, QUARANTINE).filter(pl.col("source_digest").is_in(digests))
    fresh = (
        conform(rows, QUARANTINE_SCHEMA)
        .unique(QUARANTINE_KEY, maintain_order=True)
        .join(quarantined.select(QUARANTINE_KEY).collect(), on=QUARANTINE_KEY, how="anti")
    )
    if fresh.height:
        append_rows(lake_url, QUARANTINE, fresh)
    return fresh.height


def set_rows_aside(lake_url: str, table: str, rows: pl.DataFrame) -> int:
    """Move rows out of a table into `set_aside/<table>`, with their `reason`; return how many.

    `rows` has the table's columns and `reason`. They are copied first and removed then, so a
    run that is cut off leaves a row in both places, never in none.
    """
    if rows.is_empty():
        return 0
    contract = TABLES[table]
    aside = f"{SET_ASIDE}/{table}"
    columns = [*contract.schema, "reason"]
    create_table(lake_url, aside, contract.schema | {"reason": pl.String}, partition_by=[])
    set_aside = pl.scan_delta(locate_table(lake_url, aside), storage_options=storage_options())
    fresh = rows.select(columns).join(set_aside.collect(), on=columns, how="anti", nulls_equal=True)
    if fresh.height:
        append_rows(lake_url, aside, fresh)
    key = ["anonymized_id", *contract.key]
    matches = " AND ".join(f"target.{name} = source.{name}" for name in ["bucket", *key])
    (
        open_table(lake_url, table)
        .merge(
            rows.select("bucket", *key).unique(),
            matches,
            source_alias="source",
            target_alias="target",
        )
        .when_matched_delete()
        .execute()
    )
    return rows.height


def delete_rows(lake_url: str, name: str, people: list[str]) -> None:
    """Delete individuals from a table in one commit; earlier versions still hold them.

    Raises ValueError for what is no pseudonym.
    """
    if not all(map(PSEUDONYM_PATTERN.fullmatch, people)):
        raise ValueError("not a pseudonym")
    listed = ", ".join(f"'{person}'" for person in people)
    open_table(lake_url, name).delete(f"anonymized_id IN ({listed})")


def erase_rows(location: str, anonymized_id: str) -> int:
    """Remove an individual from a Delta table, its old versions and its log; return the rows.

    DELETE alone leaves the rows in earlier versions, VACUUM leaves the least and greatest
    pseudonym of every file ever written in the log. Earlier versions can no longer be read.
    Nothing is done where there is no table. Raises ValueError for what is no pseudonym.
    """
    if not DeltaTable.is_deltatable(location, storage_options=storage_options()):
        return 0
    if not PSEUDONYM_PATTERN.fullmatch(anonymized_id):
        raise ValueError("not a pseudonym")
    return erase_matching(location, "anonymized_id", [anonymized_id])


def erase_matching(location: str, column: str, values: list[str]) -> int:
    """Remove the rows of hexadecimal `values` in a column, also from versions and log."""
    table = DeltaTable(location, storage_options=storage_options())
    listed = ", ".join(f"'{value}'" for value in values if HEXADECIMAL.fullmatch(value))
    removed = table.delete(f"{column} IN ({listed})")["num_deleted_rows"] if listed else 0
    forget_earlier_versions(location)
    return int(removed or 0)


def erase_before(location: str, column: str, before: datetime) -> int:
    """Remove rows whose `column`, a day or an instant, lies before; also from earlier versions."""
    table = DeltaTable(location, storage_options=storage_options())
    moment = before.date().isoformat() if _holds_days(table, column) else before.isoformat()
    removed = table.delete(f"{column} < '{moment}'")["num_deleted_rows"]
    if removed:
        forget_earlier_versions(location)
    return int(removed or 0)


def _holds_days(table: DeltaTable, column: str) -> bool:
    fields = {field.name: str(field.type) for field in table.schema().fields}
    return "date" in fields[column]


def forget_earlier_versions(location: str) -> None:
    """Remove files that only earlier versions of a table use, and their entries in the log."""
    table = DeltaTable(location, storage_options=storage_options())
    table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False, full=True)
    if table.metadata().configuration.get(LOG_RETENTION) != NO_RETENTION:
        table.alter.set_table_properties({LOG_RETENTION: NO_RETENTION})
    table = DeltaTable(location, storage_options=storage_options())
    table.create_checkpoint()
    table.cleanup_metadata()


def storage_options() -> dict[str, str]:
    """Return what an s3:// lake needs besides the usual AWS variables of the environment."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    return {"aws_allow_http": "true"} if endpoint.startswith("http://") else {}


def append_rows(lake_url: str, name: str, rows: pl.DataFrame) -> None:
    write_deltalake(
        open_table(lake_url, name),
        rows,
        mode="append",
        commit_properties=CommitProperties(custom_metadata={"rows": str(rows.height)}),
    )


def open_table(lake_url: str, name: str) -> DeltaTable:
    """Return a Delta table of the lake; raises TableNotFoundError where there is none."""
    return DeltaTable(locate_table(lake_url, name), storage_options=storage_options())


def create_table(
    lake_url: str, name: str, schema: ColumnTypes, partition_by: Iterable[str] = ("bucket",)
) -> None:
    """Create a table of the lake that is not there, and add columns that an older one lacks."""
    create_at(locate_table(lake_url, name), schema, partition_by)


def create_at(location: str, schema: ColumnTypes, partition_by: Iterable[str]) -> None:
    """Create the Delta table of a location, or add the columns that an older one lacks.

    An added column is null in the rows that are there.
    """
    empty = pl.DataFrame(schema=schema).to_arrow(compat_level=pl.CompatLevel.oldest())
    wanted = Schema.from_arrow(empty.schema)
    table = DeltaTable.create(
        location,
        schema=wanted,
        mode="ignore",
        partition_by=list(partition_by),
        storage_options=storage_options(),
    )
    present = {field.name for field in table.schema().fields}
    absent = [field for field in wanted.fields if field.name not in present]
    if absent:
        table.alter.add_columns(absent)


def _schema_of(name: str) -> ColumnTypes:
    if name == QUARANTINE:
        return dict(QUARANTINE_SCHEMA)
    return dict(TABLES[name].schema) if name in TABLES else dict(COMMON_LAKE_COLUMNS)


def conform(rows: pl.DataFrame, schema: ColumnTypes) -> pl.DataFrame:
    """Return the columns of a schema, in its types and order."""
    return rows.select(pl.col(name).cast(dtype) for name, dtype in schema.items())
