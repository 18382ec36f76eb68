"""Past days are filled once, a cut-off run is continued, and today's answers stay as they are."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.feature_tables import EVENT_TIMESTAMP, locate_feature_table
from feature_repo.pseudonyms import BUCKET_COUNT
from feature_repo.stored_views import JOIN_KEY
from flows import backfill as backfill_flow
from flows.backfill import MAX_DAYS, RangeError, backfill, list_days
from flows.features.backfilled import Done, list_done, list_filled_days, remember, remember_begin
from flows.features.moments import find_midnight
from flows.ingestion import ingest
from flows.lake.tables import scan_table
from flows.materialisation import compute_bucket, compute_views
from monitoring.drift_reference import DriftReference
from tests.fixtures.drift_world import SCREENINGS, list_reports, reference, screen, watched
from tests.fixtures.fault_world import World, make_empty_world, small_drop, world
from tests.fixtures.trained_world import LAST_DAY, TrainedWorld
from tests.fixtures.webhook import webhook

__all__ = ["make_empty_world", "reference", "small_drop", "watched", "webhook", "world"]

TODAY = datetime.now(UTC).date()
YESTERDAY = TODAY - timedelta(days=1)
DAYS = (LAST_DAY - timedelta(days=8), LAST_DAY - timedelta(days=1))


@pytest.mark.parametrize(
    ("begin", "end", "every", "why"),
    [
        (YESTERDAY, TODAY, 1, "is not over yet"),
        (YESTERDAY, YESTERDAY - timedelta(days=1), 1, "before it begins"),
        (YESTERDAY - timedelta(days=MAX_DAYS), YESTERDAY, 1, "days are more than"),
        (YESTERDAY, YESTERDAY, 0, "is no step"),
    ],
)
def test_what_is_no_range_of_past_days_is_refused(
    begin: date, end: date, every: int, why: str
) -> None:
    with pytest.raises(RangeError, match=why):
        list_days(begin, end, every)


@given(st.integers(1, MAX_DAYS), st.integers(1, 40))
def test_every_so_many_days_from_the_first_one(days: int, every: int) -> None:
    begin = YESTERDAY - timedelta(days=days - 1)
    found = list_days(begin, YESTERDAY, every)

    assert found[0] == begin
    assert all((day - begin).days % every == 0 for day in found)
    assert YESTERDAY - found[-1] < timedelta(days=every)
    assert len(found) == (days - 1) // every + 1


def test_what_is_noted_as_filled_is_known_once(tmp_path: Path) -> None:
    lake, done = str(tmp_path), Done(YESTERDAY, "sequences", 3)
    assert list_done(lake) == set()
    for one in (done, done, Done(YESTERDAY, "features", None)):
        remember(lake, one)

    assert list_done(lake) == {done, Done(YESTERDAY, "features", None)}
    assert Done(YESTERDAY, "sequences", 4) not in list_done(lake)  # by another release


def test_a_day_is_kept_from_the_begin_of_its_filling_on(tmp_path: Path) -> None:
    lake = str(tmp_path)
    remember(lake, Done(DAYS[0], "drift", 3))
    assert list_filled_days(lake) == set()
    remember_begin(lake, DAYS[0])
    remember(lake, Done(DAYS[1], "features", None))

    assert list_filled_days(lake) == set(DAYS)
    assert Done(DAYS[0], "features", None) not in list_done(lake)


def read_rows(day: date) -> pl.DataFrame:
    rows = pl.read_delta(locate_feature_table("survey_history"))
    return rows.filter(pl.col(EVENT_TIMESTAMP) == find_midnight(day)).sort(JOIN_KEY)


@pytest.mark.nightly
def test_features_of_past_days_are_those_of_that_day_and_a_cut_off_run_is_continued(
    world: World, small_drop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(str(small_drop))
    fill, seen = backfill_flow.fill, []

    def fail_on_the_second(one: Done) -> Any:
        seen.append(one.day)
        if len(seen) == 2:
            raise ConnectionError
        return fill(one)

    monkeypatch.setattr(backfill_flow, "fill", fail_on_the_second)
    asked: dict[str, Any] = {"begin": DAYS[0], "end": DAYS[1], "every_days": 7}
    with pytest.raises(ConnectionError):
        backfill(**asked, steps=["features"])
    assert read_rows(DAYS[1]).is_empty()

    (second,) = backfill(**asked, steps=["features"])
    assert second.day == DAYS[1]
    assert seen == [DAYS[0], DAYS[1], DAYS[1]]
    assert backfill(**asked, steps=["features"]) == []
    for day in DAYS:
        assert read_rows(day).select(JOIN_KEY).equals(find_expected(world, day).select(JOIN_KEY))
    for bucket in range(BUCKET_COUNT):  # a later night leaves them
        compute_bucket.fn(world.lake_url, bucket, LAST_DAY + timedelta(days=30))
    for day in DAYS:
        assert read_rows(day).select(JOIN_KEY).equals(find_expected(world, day).select(JOIN_KEY))
    again = backfill(**asked, steps=["features"], again=True)
    assert [one.rows for one in again] == [0, 0]  # nothing came in since


def find_expected(world: World, day: date) -> pl.DataFrame:
    """Return what the features flow would have computed on that day."""
    names = ("people", "surveys", "wearable_days", "emr_events")
    tables = {name: scan_table(world.lake_url, name).collect() for name in names}
    rows = compute_views(tables, day)["survey_history"]
    return rows.filter(pl.col(EVENT_TIMESTAMP) == find_midnight(day)).sort(JOIN_KEY)


def test_without_a_release_there_is_no_drift_and_no_sequence_to_fill(world: World) -> None:
    filled = backfill(begin=YESTERDAY, end=YESTERDAY, steps=["sequences", "drift"])

    assert [one.rows for one in filled] == [None, None]


@pytest.mark.nightly
def test_a_past_window_is_reported_and_told_to_nobody(
    watched: TrainedWorld, reference: DriftReference, evidently: None, webhook: Any
) -> None:
    screen(watched, reference, **{next(iter(reference.columns)): np.full(SCREENINGS, 1e6)})
    (filled,) = backfill(begin=YESTERDAY, end=YESTERDAY, steps=["drift"], again=True)

    (report,) = list_reports(watched)
    assert report.window_end == find_midnight(TODAY)
    assert report.rows_screened == filled.rows
    assert not any("drift score" in message for message in webhook.messages)
