"""The lake: Delta tables by pseudonym, partitioned by hash bucket, under `LAKE_URL`.

Every change is one Delta commit, so a process killed at any moment leaves the table as it
was before or after, never in between. The table's version and digest are what lineage cites.
"""

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl
from deltalake import CommitProperties, DeltaTable, Schema, write_deltalake

from feature_repo.pseudonyms import PSEUDONYM_PATTERN
from flows.runtime.counts import Counts
from flows.sources.contract import COMMON_LAKE_COLUMNS, INSTANT, TABLES, ColumnTypes, Table

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


class DuplicateKeyError(ValueError):
    """Rows to merge hold a key twice; says how many, never whose."""


@dataclass(frozen=True)
class MergeCounts(Counts):
    """What became of merged rows."""

    inserted: int = 0
    corrected: int = 0
    unchanged: int = 0


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


def merge_rows(lake_url: str, table: str, frame: pl.DataFrame) -> MergeCounts:
    """Insert new rows, correct changed ones and leave equal ones alone; idempotent.

    `frame` has the table's columns; `available_at` is when a row could first have been
    known. A corrected row becomes available when it is ingested, because nobody could have
    known the correction before. One commit per bucket that changes; none if nothing does.
    Raises DuplicateKeyError when `frame` has two rows of one key.
    """
    contract = TABLES[table]
    rows = _conform(frame, contract.schema)
    _refuse_duplicate_keys(contract, rows)
    create_table(lake_url, table, contract.schema)
    counts = MergeCounts()
    for bucket in sorted(rows["bucket"].unique()):
        some = rows.filter(pl.col("bucket") == bucket)
        known = read_known_rows(lake_url, contract, bucket, some)
        later = _date_corrections(contract, some, known)
        counts += merge_bucket(lake_url, contract, bucket, later, known)
    return counts


def _date_corrections(table: Table, rows: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    key = ["anonymized_id", *table.key]
    is_known = known.select(key).with_columns(known=pl.lit(True))
    corrected_at = pl.max_horizontal("available_at", "ingested_at")
    return rows.join(is_known, on=key, how="left").with_columns(
        available_at=pl.when("known").then(corrected_at).otherwise("available_at")
    )


def scan_table(lake_url: str, name: str, bucket: int | None = None) -> pl.LazyFrame:
    """Return the rows of a table, of one bucket if given; an absent table has none.

    Columns that an older lake does not have yet are null.
    """
    return scan_records(lake_url, name, _schema_of(name), bucket)


def scan_records(
    lake_url: str, name: str, schema: ColumnTypes, bucket: int | None = None
) -> pl.LazyFrame:
    """Return the rows of a Delta table with the columns of `schema`; an absent one has none."""
    location = locate_table(lake_url, name)
    if not DeltaTable.is_deltatable(location, storage_options=storage_options()):
        return pl.LazyFrame(schema=schema)
    rows = pl.scan_delta(location, storage_options=storage_options())
    known = rows.collect_schema().names()
    absent = [pl.lit(None, dtype=schema[name]).alias(name) for name in schema if name not in known]
    rows = rows.with_columns(absent).select(list(schema)) if absent else rows
    return rows if bucket is None else rows.filter(pl.col("bucket") == bucket)


def get_version(lake_url: str, name: str) -> int | None:
    """Return the version of a table, None when there is no such table."""
    location = locate_table(lake_url, name)
    if not DeltaTable.is_deltatable(location, storage_options=storage_options()):
        return None
    return _open(lake_url, name).version()


def describe_table(lake_url: str, name: str) -> TableState:
    """Return version, row count and digest of a table.

    The digest covers names, sizes and statistics of the table's live files: same digest,
    same files. It reads the Delta log only, not the rows.
    """
    version = get_version(lake_url, name)
    if version is None:
        return TableState(name, None, 0, "")
    actions = pl.DataFrame(_open(lake_url, name).get_add_actions(flatten=True)).sort("path")
    rows = int(actions["num_records"].sum()) if actions.height else 0
    stated = [f"{path} {size}" for path, size in actions.select("path", "size_bytes").iter_rows()]
    digest = hashlib.sha256("\n".join([f"{name} {rows}", *stated]).encode()).hexdigest()
    return TableState(name, version, rows, digest)


def append_quarantine(lake_url: str, rows: pl.DataFrame) -> int:
    """Add rejected rows and return how many were not there from an earlier run.

    `rows` has the columns of QUARANTINE_SCHEMA.
    """
    if rows.is_empty():
        return 0
    create_table(lake_url, QUARANTINE, QUARANTINE_SCHEMA, partition_by=[])
    digests = rows["source_digest"].unique().to_list()
    known = scan_table(lake_url, QUARANTINE).filter(pl.col("source_digest").is_in(digests))
    fresh = (
        _conform(rows, QUARANTINE_SCHEMA)
        .unique(QUARANTINE_KEY, maintain_order=True)
        .join(known.select(QUARANTINE_KEY).collect(), on=QUARANTINE_KEY, how="anti")
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
    known = pl.scan_delta(locate_table(lake_url, aside), storage_options=storage_options())
    fresh = rows.select(columns).join(known.collect(), on=columns, how="anti", nulls_equal=True)
    if fresh.height:
        append_rows(lake_url, aside, fresh)
    key = ["anonymized_id", *contract.key]
    matches = " AND ".join(f"target.{name} = source.{name}" for name in ["bucket", *key])
    (
        _open(lake_url, table)
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
    """Delete individuals from a table in one commit; earlier versions still hold them."""
    if not all(map(PSEUDONYM_PATTERN.fullmatch, people)):
        raise ValueError("not a pseudonym")
    listed = ", ".join(f"'{person}'" for person in people)
    _open(lake_url, name).delete(f"anonymized_id IN ({listed})")


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


def forget_earlier_versions(location: str) -> None:
    """Remove files that only earlier versions of a table use, and what the log says of them."""
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


def merge_bucket(
    lake_url: str,
    table: Table,
    bucket: int,
    rows: pl.DataFrame,
    known: pl.DataFrame,
    adds: bool = False,
) -> MergeCounts:
    """Write those rows of one bucket that differ from what is `known`; one commit.

    With `adds`, what a row leaves out stands as it was, and a row that only fills what was
    missing does not count as a correction of what was known: it is available as it says.
    """
    conformed = _conform(rows, table.schema)
    new, changed = _compare(table, conformed, known, adds)
    counts = MergeCounts(new.height, changed.height, rows.height - new.height - changed.height)
    if new.height or changed.height:
        create_table(lake_url, table.name, table.schema)
    if changed.height:
        _merge_changes(lake_url, table, bucket, pl.concat([new, changed]))
    elif new.height:
        append_rows(lake_url, table.name, new.sort("anonymized_id", *table.key))
    return counts


def read_known_rows(lake_url: str, table: Table, bucket: int, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the landed rows of the individuals in `rows`."""
    people = rows.lazy().select(pl.col("anonymized_id").unique())
    known = scan_table(lake_url, table.name, bucket)
    return known.join(people, on="anonymized_id", how="semi").collect(engine="streaming")


def _compare(
    table: Table, rows: pl.DataFrame, known: pl.DataFrame, adds: bool
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the rows of `rows` that are new, and those that differ from what is known."""
    key = ["anonymized_id", *table.key]
    values = [name for name in table.columns if name not in table.key]
    before = known.select(*key, *values, "available_at").with_columns(known=pl.lit(True))
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


def _merge_changes(lake_url: str, table: Table, bucket: int, rows: pl.DataFrame) -> None:
    # The literal bucket lets Delta skip every other partition's files.
    conditions = [f"target.bucket = {bucket}"] + [
        f"target.{name} = source.{name}" for name in ("bucket", "anonymized_id", *table.key)
    ]
    (
        _open(lake_url, table.name)
        .merge(rows, " AND ".join(conditions), source_alias="source", target_alias="target")
        .when_matched_update_all()
        .when_not_matched_insert_all()
        .execute()
    )


def append_rows(lake_url: str, name: str, rows: pl.DataFrame) -> None:
    write_deltalake(
        _open(lake_url, name),
        rows,
        mode="append",
        commit_properties=CommitProperties(custom_metadata={"rows": str(rows.height)}),
    )


def _open(lake_url: str, name: str) -> DeltaTable:
    return DeltaTable(locate_table(lake_url, name), storage_options=storage_options())


def create_table(
    lake_url: str, name: str, schema: ColumnTypes, partition_by: Iterable[str] = ("bucket",)
) -> None:
    """Create a Delta table that is not there, and add columns that an older one lacks."""
    empty = pl.DataFrame(schema=schema).to_arrow(compat_level=pl.CompatLevel.oldest())
    DeltaTable.create(
        locate_table(lake_url, name),
        schema=Schema.from_arrow(empty.schema),
        mode="ignore",
        partition_by=list(partition_by),
        storage_options=storage_options(),
    )
    table = _open(lake_url, name)
    known = {field.name for field in table.schema().fields}
    absent = [field for field in Schema.from_arrow(empty.schema).fields if field.name not in known]
    if absent:
        table.alter.add_columns(absent)


def merge_records(
    lake_url: str,
    name: str,
    bucket: int,
    key: tuple[str, ...],
    fresh: pl.DataFrame,
    gone: pl.DataFrame,
) -> None:
    """Insert or update `fresh` records and delete `gone` ones in one commit."""
    marked = pl.concat(
        [fresh.with_columns(is_gone=pl.lit(False)), gone.with_columns(is_gone=pl.lit(True))]
    )
    # The literal bucket lets Delta skip every other partition's files.
    conditions = [f"target.bucket = {bucket}"] + [f"target.{k} = source.{k}" for k in key]
    columns = {column: f"source.{column}" for column in fresh.columns}
    (
        _open(lake_url, name)
        .merge(marked, " AND ".join(conditions), source_alias="source", target_alias="target")
        .when_matched_delete("source.is_gone")
        .when_matched_update(columns)
        .when_not_matched_insert(columns, predicate="NOT source.is_gone")
        .execute()
    )


def _schema_of(name: str) -> ColumnTypes:
    if name == QUARANTINE:
        return dict(QUARANTINE_SCHEMA)
    return dict(TABLES[name].schema) if name in TABLES else dict(COMMON_LAKE_COLUMNS)


def _conform(rows: pl.DataFrame, schema: ColumnTypes) -> pl.DataFrame:
    return rows.select(pl.col(name).cast(dtype) for name, dtype in schema.items())


def _refuse_duplicate_keys(table: Table, rows: pl.DataFrame) -> None:
    repeated = rows.height - rows.select(pl.struct("anonymized_id", *table.key).n_unique()).item()
    if repeated > 0:
        raise DuplicateKeyError(f"{table.name}: {repeated} rows repeat the key of another")
