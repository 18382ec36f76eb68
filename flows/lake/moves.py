"""Resources that move: a newer version names another person, or becomes a row of another table.

Records are kept and compared by individual, so the older version would stand beside the newer one.
It is taken back like a retracted one, in whichever order the versions come. Versions that nothing
tells apart take back nothing: two servers may give one id to two people.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
from pyarrow.parquet import read_metadata

from flows.lake.parts import VERSION, scan_sources
from flows.sources.contract import CONSENTS, PART_COLUMNS, TABLES, ColumnTypes

#: What tells where a version of a resource belongs.
SOURCES: ColumnTypes = {
    "source_id": pl.String,
    "anonymized_id": pl.String,
    **{name: PART_COLUMNS[name] for name in VERSION},
}
WITHHELD = "withheld"
#: Records looked at in one pass, about: as many as memory holds beside a group of buckets.
RECORDS_AT_ONCE = 1_000_000


def note_withheld(staging: Path, table: str, rows: pl.DataFrame, batch: str) -> None:
    """Keep, for the run, which versions are of people without consent: they end older ones too."""
    if rows.is_empty():
        return
    folder = staging / WITHHELD / table
    folder.mkdir(parents=True, exist_ok=True)
    rows.select(SOURCES.keys()).write_parquet(folder / f"{batch}.parquet", compression="lz4")


def list_staged_moves(lake_url: str, staging: Path) -> list[dict[str, Any]]:
    """Return, as retractions, the versions of resources that moved in what is staged."""
    tables = [name for name in TABLES if name != CONSENTS.name]
    staged = pl.concat(_scan_staged(staging, name) for name in tables)
    stored = pl.concat(_scan_stored(lake_url, name) for name in tables)
    moves = []
    for digits in _divide(staging):
        begins = pl.col("source_id").str.starts_with(digits)
        moves += _list_moves(staged.filter(begins), stored.filter(begins))
    return moves


def list_moved_consents(lake_url: str, statements: pl.DataFrame) -> list[dict[str, Any]]:
    """Return, as retractions, the versions of Consents that moved with a drop's statements."""
    new = statements.lazy().select(*SOURCES, table=pl.lit(CONSENTS.name))
    return _list_moves(new, _scan_stored(lake_url, CONSENTS.name))


def _list_moves(new: pl.LazyFrame, stored: pl.LazyFrame) -> list[dict[str, Any]]:
    """Return the versions of the resources whose records are of several people or tables.

    Each takes back what is older than itself: it ranks below the record of its own version.
    """
    met = stored.join(new, on="source_id", how="semi")
    several = pl.concat([new, met]).unique().filter(pl.col("source_id").is_duplicated()).collect()
    places, versions = pl.struct("anonymized_id", "table"), pl.struct(VERSION)
    has_moved = (places.n_unique() > 1) & (versions.n_unique() > 1)
    moved = several.filter(has_moved.over("source_id")).select(SOURCES.keys())
    ended = pl.col("version_rank").fill_null(0) - 1
    written = pl.col("version_at").dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
    return moved.with_columns(version_rank=ended, version_at=written).to_dicts()


def _divide(staging: Path) -> Iterator[str]:
    """Yield beginnings of source_ids, so that each has about RECORDS_AT_ONCE or fewer."""
    records = sum(read_metadata(file).num_rows for file in staging.rglob("*.parquet"))
    length = 0
    while records > RECORDS_AT_ONCE * 16**length:
        length += 1
    return (f"{number:0{length}x}" if length else "" for number in range(16**length))


def _scan_staged(staging: Path, table: str) -> pl.LazyFrame:
    files = [
        *(staging / table).glob("*/*.parquet"),
        *(staging / WITHHELD / table).glob("*.parquet"),
    ]
    empty = pl.LazyFrame(schema=SOURCES)
    rows = pl.scan_parquet(files, extra_columns="ignore").select(SOURCES.keys()) if files else empty
    return rows.drop_nulls("source_id").with_columns(table=pl.lit(table))


def _scan_stored(lake_url: str, table: str) -> pl.LazyFrame:
    return scan_sources(lake_url, table, SOURCES).with_columns(table=pl.lit(table))
