"""Checked rows on their way into the lake, as Parquet files per table and hash bucket.

A drop may be larger than memory and hold a person's rows in several files. Staging them by
bucket first means that everything that may belong together (repeated rows, the Observations
of one survey) is then met in one bucket, which fits in memory.
"""

import shutil
import tempfile
from pathlib import Path

import polars as pl

from feature_repo.pseudonyms import BUCKET_COUNT


def open_staging(lake_url: str) -> Path:
    """Return an empty folder for one run; what a killed run left in it is removed.

    It lies beside the tables of a local lake, so that pseudonymised rows stay where such
    rows are kept; for a remote lake in this machine's temporary folder.
    """
    local = "://" not in lake_url
    root = Path(lake_url) if local else Path(tempfile.gettempdir())
    folder = root / "_mhras_staging"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    return folder


def stage_rows(folder: Path, table: str, rows: pl.DataFrame, batch: str) -> None:
    """Add checked rows of a table; the same `batch` again replaces what it staged before."""
    for (bucket,), part in rows.partition_by("bucket", as_dict=True).items():
        target = folder / table / str(bucket)
        target.mkdir(parents=True, exist_ok=True)
        part.write_parquet(target / f"{batch}.parquet", compression="lz4")


def read_staged(folder: Path, table: str, bucket: int) -> list[pl.DataFrame]:
    """Return all staged rows of one bucket."""
    files = sorted((folder / table / str(bucket)).glob("*.parquet"))
    return [pl.read_parquet(file) for file in files]


def list_staged_buckets(folder: Path, table: str) -> list[int]:
    return [number for number in range(BUCKET_COUNT) if (folder / table / str(number)).is_dir()]
