"""Which past days have been filled: a Delta table in the lake, which lives and dies with it."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Literal

import polars as pl
from deltalake import write_deltalake

from flows.lake.tables import has_table, locate_table, storage_options
from flows.sources.contract import ColumnTypes

TABLE = "backfilled"
Step = Literal["features", "sequences", "drift"]
#: The mark of a day whose features have begun to be filled.
BEGUN = "begun"


@dataclass(frozen=True)
class Done:
    """A step of a day, and the release its result depends on, None where on none."""

    day: date
    step: Step
    release: int | None


def list_done(lake_url: str) -> set[Done]:
    """Return what has been filled so far."""
    rows = _read(lake_url).filter(pl.col("step") != BEGUN)
    return {Done(*row) for row in rows.select("day", "step", "release").iter_rows()}


def list_filled_days(lake_url: str) -> set[date]:
    """Return the days whose features have been filled, or have begun to be."""
    return set(_read(lake_url).filter(pl.col("step").is_in(["features", BEGUN]))["day"])


def remember(lake_url: str, done: Done) -> None:
    """Note a step of a day as filled; noted twice, it is filled all the same."""
    _note(lake_url, done.day, done.step, done.release)


def remember_begin(lake_url: str, day: date) -> None:
    """Note that the features of a day are about to be filled: the nights leave them alone."""
    _note(lake_url, day, BEGUN, None)


SCHEMA: ColumnTypes = {
    "day": pl.Date,
    "step": pl.String,
    "release": pl.Int64,
    "filled_at": pl.Datetime("us"),
}


def _read(lake_url: str) -> pl.DataFrame:
    if not has_table(lake_url, TABLE):
        return pl.DataFrame(schema=SCHEMA)
    return pl.read_delta(locate_table(lake_url, TABLE), storage_options=storage_options())


def _note(lake_url: str, day: date, step: str, release: int | None) -> None:
    values = (day, step, release, datetime.now(UTC).replace(tzinfo=None))
    row = pl.DataFrame([values], schema=SCHEMA, orient="row")
    location = locate_table(lake_url, TABLE)
    write_deltalake(location, row, mode="append", storage_options=storage_options())
