"""Checked rows on their way into the lake, as Parquet files per table and hash bucket.

A drop may be larger than memory and hold a person's rows in several files. Staging them by
bucket first means that everything that may belong together (repeated rows, the Observations
of one survey) is then met in one bucket, which fits in memory. Of a small drop several do.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl
from pyarrow.parquet import read_metadata

from flows.sources.contract import COMMON_LAKE_COLUMNS, PART_COLUMNS, ColumnTypes, Table
from flows.sources.locations import find_work_folder


def open_staging(lake_url: str) -> Path:
    """Return an empty folder for one run; what a killed run left in it is removed.

    One ingestion of a lake runs at a time.
    """
    folder = find_work_folder(lake_url, "_mhras_staging")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    return folder


def stage_rows(folder: Path, table: str, rows: pl.DataFrame, batch: str) -> None:
    """Add checked rows of a table; the same `batch` again replaces what it staged before."""
    for (bucket,), part in rows.partition_by("bucket", as_dict=True).items():
        target = folder / table / str(bucket)
        target.mkdir(parents=True, exist_ok=True)
        part.write_parquet(target / f"{batch}.parquet", compression="lz4")


def unstage_rows(folder: Path, table: str, source: int) -> None:
    """Remove what was staged of one file of the drop."""
    for file in (folder / table).glob(f"*/{source}-*.parquet"):
        file.unlink()


def read_staged(folder: Path, table: Table, buckets: Sequence[int]) -> pl.DataFrame:
    """Return all staged records of some buckets, with the columns of STAGED and of the table."""
    schema = STAGED | COMMON_LAKE_COLUMNS | PART_COLUMNS | table.columns
    folders = [folder / table.name / str(bucket) for bucket in buckets]
    files = [file for bucket in folders for file in sorted(bucket.glob("*.parquet"))]
    frames = [pl.read_parquet(file) for file in files]
    rows = pl.concat([pl.DataFrame(schema=schema), *map(_complete(schema), frames)])
    return rows.drop("ingested_at")


#: Where in the drop a record is from; null for one that had landed before.
STAGED: ColumnTypes = {"source": pl.Int32, "row_number": pl.Int64}


def _complete(schema: ColumnTypes) -> Callable[[pl.DataFrame], pl.DataFrame]:
    def complete(rows: pl.DataFrame) -> pl.DataFrame:
        absent = [pl.lit(None).alias(name) for name in schema if name not in rows.columns]
        return rows.with_columns(absent).select(
            pl.col(name).cast(kind) for name, kind in schema.items()
        )

    return complete


def count_staged(folder: Path, table: str) -> dict[int, int]:
    """Return how many records of a table are staged, by bucket."""
    counts: dict[int, int] = {}
    for file in (folder / table).glob("*/*.parquet"):
        bucket = int(file.parent.name)
        counts[bucket] = counts.get(bucket, 0) + read_metadata(file).num_rows
    return counts
