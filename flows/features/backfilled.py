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


@dataclass(frozen=True)
class Done:
    """A step of a day, and the release its result depends on, None where on none."""

    day: date
    step: Step
    release: int | None


def list_done(lake_url: str) -> set[Done]:
    """Return what has been filled so far."""
    if not has_table(lake_url, TABLE):
        return set()
    rows = pl.read_delta(locate_table(lake_url, TABLE), storage_options=storage_options())
    return {Done(*row) for row in rows.select("day", "step", "release").iter_rows()}


def remember(lake_url: str, done: Done) -> None:
    """Note a step of a day as filled; noted twice, it is filled all the same."""
    schema: ColumnTypes = {
        "day": pl.Date,
        "step": pl.String,
        "release": pl.Int64,
        "filled_at": pl.Datetime("us"),
    }
    values = (done.day, done.step, done.release, datetime.now(UTC).replace(tzinfo=None))
    row = pl.DataFrame([values], schema=schema, orient="row")
    location = locate_table(lake_url, TABLE)
    write_deltalake(location, row, mode="append", storage_options=storage_options())
