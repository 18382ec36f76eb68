"""Resources that move: a newer version names another person, or becomes a row of another table.

Records are kept and compared by individual, so the older version would stand beside the newer one.
It is taken back like a retracted one, in whichever order the versions come. Equal versions take
back nothing: two servers may give one id to two people.
"""

from pathlib import Path
from typing import Any

import polars as pl
from pyarrow.parquet import read_metadata

from flows.lake.parts import VERSION, name_parts, scan_sources
from flows.lake.tables import count_rows
from flows.sources.contract import CONSENTS, PART_COLUMNS, TABLES, ColumnTypes

#: What tells where a version of a resource belongs.
SOURCES: ColumnTypes = {
    "source_id": pl.String,
    "anonymized_id": pl.String,
    **{name: PART_COLUMNS[name] for name in VERSION},
}
LANDED = [name for name in TABLES if name != CONSENTS.name]
WITHHELD = "withheld"
PLACES = "places"
#: Records looked at in one pass, about; each takes 100 bytes or fewer.
RECORDS_AT_ONCE = 1_000_000


def note_places(staging: Path, table: str, rows: pl.DataFrame, batch: str) -> None:
    """Keep, for the run, the hashes of which records of a batch are where."""
    _write(staging / PLACES / f"{table}-{batch}.parquet", rows.select(_hash_places(table)))


def note_withheld(staging: Path, table: str, rows: pl.DataFrame, batch: str) -> None:
    """Keep, for the run, which versions are of people without consent: they end older ones too."""
    _write(staging / WITHHELD / table / f"{batch}.parquet", rows.select(SOURCES.keys()))


def _write(file: Path, rows: pl.DataFrame) -> None:
    if rows.height:
        file.parent.mkdir(parents=True, exist_ok=True)
        rows.write_parquet(file, compression="lz4")


def _hash_places(table: str) -> list[pl.Expr]:
    """Return `id` and `place` of records: hashes take a tenth of the memory of names."""
    place = pl.col("anonymized_id").hash(seed=list(TABLES).index(table))
    return [pl.col("source_id").hash().alias("id"), place.alias("place")]


def list_staged_moves(lake_url: str, staging: Path) -> list[dict[str, Any]]:
    """Return, as retractions, the versions of resources that moved in what is staged."""
    files = list((staging / PLACES).glob("*.parquet"))
    if not files:
        return []
    places = pl.scan_parquet(files)
    passes = 1 + _count_records(lake_url, files) // RECORDS_AT_ONCE
    ids = []
    for number in range(passes):
        is_now = pl.col("id") % passes == number
        ids.append(_find_scattered(lake_url, LANDED, places.filter(is_now), is_now))
    staged = pl.concat(_scan_staged(staging, name) for name in LANDED)
    return _list_moves(lake_url, LANDED, staged, pl.concat(ids))


def _count_records(lake_url: str, files: list[Path]) -> int:
    """Return how many records are staged, or stored if those are more."""
    stored = [sum(count_rows(lake_url, name_parts(name)).values()) for name in LANDED]
    return max(sum(read_metadata(file).num_rows for file in files), *stored)


def list_moved_consents(lake_url: str, statements: pl.DataFrame) -> list[dict[str, Any]]:
    """Return, as retractions, the versions of Consents that moved with a drop's statements."""
    name = CONSENTS.name
    new = statements.lazy().select(*SOURCES, table=pl.lit(name))
    ids = _find_scattered(lake_url, [name], new.select(_hash_places(name)), pl.lit(True))
    return _list_moves(lake_url, [name], new, ids)


def _find_scattered(
    lake_url: str, tables: list[str], new: pl.LazyFrame, is_wanted: pl.Expr
) -> pl.Series:
    """Return the hashes of source_ids of which records are of several people or tables.

    `new` has `id` and `place` of the drop's records. Two names of one hash do no harm: the
    records themselves are compared after this.
    """
    places = new.unique().collect()
    scattered = [places.filter(pl.col("id").is_duplicated())["id"]]
    for name in tables:
        stored = scan_sources(lake_url, name, SOURCES).select(_hash_places(name))
        known = stored.filter(is_wanted).collect()
        met = places.join(known, on="id", suffix="_before")
        scattered.append(met.filter(pl.col("place") != pl.col("place_before"))["id"])
    return pl.concat(scattered).unique()


def _list_moves(
    lake_url: str, tables: list[str], new: pl.LazyFrame, ids: pl.Series
) -> list[dict[str, Any]]:
    """Return those versions of resources that moved, if any of the resources `ids` did.

    Each takes back what is older than itself: it ranks below the record of its own version.
    """
    if ids.is_empty():
        return []
    is_one = pl.col("source_id").hash().is_in(ids.implode())
    stored = (
        scan_sources(lake_url, name, SOURCES).with_columns(table=pl.lit(name)) for name in tables
    )
    records = pl.concat(rows.filter(is_one) for rows in (new, *stored)).unique().collect()
    places, versions = pl.struct("anonymized_id", "table"), pl.struct(VERSION)
    has_moved = (places.n_unique() > 1) & (versions.n_unique() > 1)
    moved = records.filter(has_moved.over("source_id")).select(SOURCES.keys())
    ended = pl.col("version_rank").fill_null(0) - 1
    written = pl.col("version_at").dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
    return moved.with_columns(version_rank=ended, version_at=written).to_dicts()


def _scan_staged(staging: Path, table: str) -> pl.LazyFrame:
    files = [
        *(staging / table).glob("*/*.parquet"),
        *(staging / WITHHELD / table).glob("*.parquet"),
    ]
    empty = pl.LazyFrame(schema=SOURCES)
    rows = pl.scan_parquet(files, extra_columns="ignore").select(SOURCES.keys()) if files else empty
    return rows.with_columns(table=pl.lit(table))
