"""No feature looks past the moment it stands for, whatever comes later."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from feature_repo.catalogue import STORED_VIEWS
from flows.materialisation import compute_views
from tests.fixtures.landed_tables import Tables, simulate_tables

LAST_DAY = date(2025, 12, 31)
DATED = {
    "surveys": pl.col("answered_at"),
    "wearable_days": pl.col("date").cast(pl.Datetime("us", "UTC")),
    "emr_events": pl.col("started_at"),
}
#: In the midst of the data; the last moment, and one of every individual.
CUT = datetime(2025, 9, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def tables() -> Tables:
    tables = simulate_tables(40, 1, LAST_DAY)
    assert all(tables[name].filter(moment >= CUT).height > 0 for name, moment in DATED.items())
    return tables


@pytest.fixture(scope="module")
def before(tables) -> Tables:
    return compute_until_cut(tables)


def compute_until_cut(tables: Tables) -> Tables:
    views = compute_views(tables, CUT.date())
    return {name: rows.sort("anonymized_id", "event_timestamp") for name, rows in views.items()}


def require_unchanged(before: Tables, tables: Tables) -> None:
    after = compute_until_cut(tables)
    for view in STORED_VIEWS:
        assert before[view.name].height > 0
        assert_frame_equal(before[view.name], after[view.name], check_column_order=False)


def shift(column: str, dtype: pl.DataType) -> pl.Expr:
    """Return another value of the same type than the one that is there."""
    if dtype.is_numeric():
        return (pl.col(column).fill_null(0) * 0 + 3).cast(dtype)
    return pl.when(pl.col(column).is_null()).then(pl.lit("x")).otherwise(pl.lit(None))


def alter(frame: pl.DataFrame, later: pl.Expr, key: set[str]) -> pl.DataFrame:
    texts_and_numbers = {
        name: dtype
        for name, dtype in frame.schema.items()
        if (dtype.is_numeric() or dtype == pl.String)
        and name not in {"anonymized_id", "key_id", "bucket", *key}
    }
    return frame.with_columns(
        pl.when(later).then(shift(name, dtype)).otherwise(name).alias(name)
        for name, dtype in texts_and_numbers.items()
    )


@pytest.mark.parametrize("table", DATED)
def test_removing_everything_later_changes_nothing_before(before, tables, table):
    require_unchanged(before, tables | {table: tables[table].filter(DATED[table] < CUT)})


@pytest.mark.parametrize("table", DATED)
def test_altering_everything_later_changes_nothing_before(before, tables, table):
    # The instrument decides which moments there are, so it stays.
    altered = alter(tables[table], DATED[table] >= CUT, {"instrument"})
    assert not altered.equals(tables[table])
    require_unchanged(before, tables | {table: altered})


@pytest.mark.parametrize("table", DATED)
@pytest.mark.parametrize("hours", [0, 1, 24, 24 * 90])
def test_what_is_added_from_the_moment_on_changes_nothing_before(before, tables, table, hours):
    moment = CUT + timedelta(hours=hours)
    added = tables[table].unique("anonymized_id")
    times = {"surveys": "answered_at", "wearable_days": "date", "emr_events": "started_at"}
    column = times[table]
    added = added.with_columns(
        pl.lit(moment).cast(added.schema[column]).alias(column),
        pl.lit(moment).alias("available_at"),
    ).cast(dict(added.schema))
    if table == "surveys":
        added = added.filter(pl.col("instrument") == "GAD-7")
    more = pl.concat([tables[table], added]).unique(["anonymized_id", column, *_rest(table)])
    assert more.height > tables[table].height
    require_unchanged(before, tables | {table: more})


def _rest(table: str) -> list[str]:
    return {"surveys": ["instrument"], "wearable_days": [], "emr_events": ["code", "kind"]}[table]


def test_an_end_that_lies_ahead_is_not_yet_known(tables):
    # A prescription that will be stopped next month looks like any other today.
    ends_later = pl.col("ended_at") >= CUT
    events = tables["emr_events"]
    long_running = pl.col("ended_at") + pl.duration(days=900)
    events = events.with_columns(
        pl.when(pl.col("started_at") < CUT)
        .then(long_running)
        .otherwise("ended_at")
        .alias("ended_at")
    )
    tables = tables | {"emr_events": events}
    before = compute_until_cut(tables)
    unknown = events.with_columns(pl.when(~ends_later).then("ended_at").alias("ended_at"))
    long_after = events.with_columns(
        pl.when(ends_later)
        .then(pl.col("ended_at") + pl.duration(days=900))
        .otherwise("ended_at")
        .alias("ended_at")
    )

    require_unchanged(before, tables | {"emr_events": unknown})
    require_unchanged(before, tables | {"emr_events": long_after})


def test_a_row_dated_before_does_change_what_follows(before, tables):
    """The other side of the tests above: they could fail."""
    for table, moment in DATED.items():
        changed = tables | {table: tables[table].filter(moment < CUT - timedelta(days=30))}
        after = compute_until_cut(changed)
        assert not all(before[view.name].equals(after[view.name]) for view in STORED_VIEWS)
