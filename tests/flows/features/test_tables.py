"""Feature tables of an older state take on the features that were declared since."""

from datetime import UTC, datetime

import polars as pl
import pytest

from feature_repo.definitions import survey_history
from feature_repo.feast_library import FeatureView
from feature_repo.feature_tables import CREATED_TIMESTAMP, EVENT_TIMESTAMP, locate_feature_table
from feature_repo.stored_views import JOIN_KEY
from flows.features.tables import ensure_table, list_columns, merge_rows, read_bucket
from flows.lake.tables import create_at

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NEWER = survey_history.features[0].name


def make_row(view: FeatureView, value: float) -> pl.DataFrame:
    """Return a row of one individual in which every feature has this value."""
    keys = {JOIN_KEY: "a" * 32, EVENT_TIMESTAMP: NOON, CREATED_TIMESTAMP: NOON, "bucket": 3}
    columns = list_columns(view)
    return pl.DataFrame(keys | {name: value for name in columns if name not in keys})


@pytest.fixture
def older_state(tmp_path) -> str:
    """A lake whose table of survey features has every feature but NEWER, and a row in it."""
    lake = str(tmp_path / "lake")
    older = {name: kind for name, kind in list_columns(survey_history).items() if name != NEWER}
    location = locate_feature_table(survey_history.name, lake)
    create_at(location, older, ["bucket"])
    row = make_row(survey_history, 1.0).drop(NEWER)
    row.select(pl.col(name).cast(kind) for name, kind in older.items()).write_delta(
        location, mode="append"
    )
    return lake


def test_a_feature_declared_since_is_added_and_null_in_the_rows_there(older_state):
    ensure_table(survey_history, older_state)
    rows = read_bucket(survey_history, 3, lake_url=older_state)

    assert rows.columns == list(list_columns(survey_history))
    assert rows[NEWER].to_list() == [None]


def test_the_next_night_writes_the_added_feature(older_state):
    ensure_table(survey_history, older_state)

    assert merge_rows(survey_history, 3, make_row(survey_history, 1.0), lake_url=older_state) == 1
    assert read_bucket(survey_history, 3, lake_url=older_state)[NEWER].to_list() == [1.0]


def test_a_table_that_has_every_feature_is_left_as_it_is(older_state):
    for _ in range(2):
        ensure_table(survey_history, older_state)

    assert read_bucket(survey_history, 3, lake_url=older_state).height == 1


def test_a_night_is_written_to_a_table_with_a_feature_that_is_declared_no_more(tmp_path):
    lake = str(tmp_path / "lake")
    location = locate_feature_table(survey_history.name, lake)
    create_at(location, list_columns(survey_history) | {"abandoned": pl.Float32}, ["bucket"])

    assert merge_rows(survey_history, 3, make_row(survey_history, 1.0), lake_url=lake) == 1
    assert pl.read_delta(location)["abandoned"].to_list() == [None]
    assert read_bucket(survey_history, 3, lake_url=lake).height == 1
