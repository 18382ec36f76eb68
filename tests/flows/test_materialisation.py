"""Feature tables: written once, corrected beside the past, and read by Feast as they are."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from feature_repo.catalogue import STORED_VIEWS, describe_stored_views
from feature_repo.feature_tables import locate_feature_table
from feature_repo.online import open_reader
from feature_repo.pseudonyms import BUCKET_COUNT
from flows.features.moments import find_midnight
from flows.features.tables import (
    NIGHTS_KEPT,
    ensure_table,
    get_table_version,
    hold_past_nights,
    merge_rows,
    read_bucket,
)
from flows.lake.consents import read_consented_types
from flows.materialisation import compute_bucket, compute_views, serve_bucket
from serving.database.tables import Consent
from tests.fixtures.landed_tables import simulate_tables
from tests.fixtures.trained_world import SNAPSHOT as WORLD_SNAPSHOT

VIEWS = {view.name: view for view in STORED_VIEWS}
LAST_DAY = date(2025, 12, 31)
SNAPSHOT = LAST_DAY + timedelta(days=1)
KEY = ["anonymized_id", "event_timestamp", "created_timestamp"]


@pytest.fixture
def lake(tmp_path, monkeypatch):
    monkeypatch.setenv("LAKE_URL", str(tmp_path / "lake"))
    for view in STORED_VIEWS:
        ensure_table(view)


@pytest.fixture(scope="module")
def tables():
    return simulate_tables(30, 1, LAST_DAY)


def write_views(tables) -> dict[str, int]:
    """Write every view of these tables to bucket 0; return how many rows changed."""
    views = compute_views(tables, SNAPSHOT)
    return {name: merge_rows(VIEWS[name], 0, rows) for name, rows in views.items()}


def test_tables_exist_before_anything_is_computed(lake):
    for view in STORED_VIEWS:
        assert get_table_version(view) == 0
        ensure_table(view)
        assert get_table_version(view) == 0
        assert read_bucket(view, 0).is_empty()


def test_writing_again_changes_nothing(lake, tables):
    first = write_views(tables)
    versions = {view.name: get_table_version(view) for view in STORED_VIEWS}

    assert min(first.values()) > 0
    assert write_views(tables) == dict.fromkeys(VIEWS, 0)
    assert {view.name: get_table_version(view) for view in STORED_VIEWS} == versions


def test_a_late_correction_makes_a_second_row_and_leaves_the_first(lake, tables):
    write_views(tables)
    before = read_bucket(VIEWS["survey_history"], 0)
    known_at = datetime(2026, 3, 1, tzinfo=UTC)
    surveys = tables["surveys"].sort("anonymized_id", "answered_at")
    asked = surveys.filter(pl.col("instrument") == "PHQ-9").drop_nulls("item_1")
    (person, day) = asked.select("anonymized_id", "answered_at").row(0)
    is_it = (
        (pl.col("anonymized_id") == person)
        & (pl.col("answered_at") == day)
        & (pl.col("instrument") == "PHQ-9")
    )
    corrected = surveys.with_columns(
        pl.when(is_it).then(3 - pl.col("item_1")).otherwise("item_1").alias("item_1"),
        pl.when(is_it)
        .then(pl.lit(known_at).cast(surveys.schema["available_at"]))
        .otherwise("available_at")
        .alias("available_at"),
    )
    changed = write_views(tables | {"surveys": corrected})
    after = read_bucket(VIEWS["survey_history"], 0)
    new = after.join(before, on=KEY, how="anti")

    assert changed["survey_history"] == new.height > 0
    assert set(new["anonymized_id"]) == {person}
    assert new["created_timestamp"].unique().to_list() == [known_at]
    assert new["event_timestamp"].min() > day
    assert after.join(before, on=before.columns, how="semi", nulls_equal=True).height == (
        before.height
    )


def write_night(tables, snapshot: date, filled=()) -> None:
    views = compute_views(tables, snapshot)
    past = hold_past_nights(snapshot, filled)
    for name, rows in views.items():
        night = {"moment": find_midnight(snapshot), "past": past} if VIEWS[name].ttl else {}
        merge_rows(VIEWS[name], 0, rows, **night)


def list_nights(tables) -> list[date]:
    """Return the days of the stored rows of care that are of no index date."""
    dates = compute_views(tables, LAST_DAY)["care_history"]
    rows = read_bucket(VIEWS["care_history"], 0)
    nights = rows.join(dates, on=["anonymized_id", "event_timestamp"], how="anti")
    return sorted(
        set(nights["event_timestamp"].dt.date()) - set(dates["event_timestamp"].dt.date())
    )


def test_a_week_of_nights_stays_and_the_rows_of_index_dates_for_ever(lake, tables):
    nights = [SNAPSHOT + timedelta(days=n) for n in range(NIGHTS_KEPT + 3)]
    for night in nights:
        write_night(tables, night)
    stored = read_bucket(VIEWS["survey_history"], 0)
    dates = compute_views(tables, nights[-1])["survey_history"]

    assert list_nights(tables) == nights[-NIGHTS_KEPT - 1 :]
    assert dates["event_timestamp"].dt.date().min() < SNAPSHOT - timedelta(days=200)
    assert dates.join(stored, on=KEY, how="anti").is_empty()
    assert read_bucket(VIEWS["demographics"], 0).height == tables["people"].height


def test_what_an_index_date_was_before_a_correction_stays_with_it(lake, tables):
    write_night(tables, SNAPSHOT)
    before = read_bucket(VIEWS["survey_history"], 0)
    known_at = find_midnight(SNAPSHOT + timedelta(days=20))
    late = {"surveys": tables["surveys"].with_columns(available_at=pl.lit(known_at))}
    write_night(tables | late, SNAPSHOT + timedelta(days=30))
    after = read_bucket(VIEWS["survey_history"], 0)
    dates = before.filter(pl.col("event_timestamp") < find_midnight(SNAPSHOT))

    assert after.filter(pl.col("created_timestamp") == known_at).height > 0
    assert dates.join(after, on=KEY, how="anti").is_empty()


def test_a_night_that_was_filled_on_purpose_stays(lake, tables):
    filled, other = SNAPSHOT, SNAPSHOT + timedelta(days=1)
    for night in (filled, other, SNAPSHOT + timedelta(days=40)):
        write_night(tables, night, {filled})

    assert filled in list_nights(tables)
    assert other not in list_nights(tables)


def test_buckets_leave_each_other_alone(lake, tables):
    rows = compute_views(tables, SNAPSHOT)["demographics"]
    view = VIEWS["demographics"]
    merge_rows(view, 0, rows.head(10))
    merge_rows(view, 1, rows.tail(10))

    assert read_bucket(view, 0).height == read_bucket(view, 1).height == 10
    assert merge_rows(view, 0, rows.head(10)) == 0


def test_an_empty_bucket_is_no_trouble(lake, tmp_path):
    counts = compute_bucket.fn(str(tmp_path / "lake"), BUCKET_COUNT - 1, SNAPSHOT)
    assert counts == dict.fromkeys(VIEWS, (0, 0))


def find_online(person: str) -> set[str]:
    reader = open_reader(10)
    found = set(reader.fetch(describe_stored_views(), [person])[person].moments)
    reader.close()
    return found


def test_who_withdraws_leaves_the_online_store_with_the_next_features(in_trained_world):
    world, snapshot = in_trained_world, WORLD_SNAPSHOT
    consented = read_consented_types(world.engine, datetime.now(UTC), ["screening"], bucket=3)
    (person, other) = consented.filter("survey", "wearable")["anonymized_id"][:2]
    before = find_online(person), find_online(other)
    assert "survey_history" in before[0]
    theirs = update(Consent).where(Consent.anonymized_id == person, Consent.withdrawn_at.is_(None))
    now = datetime.now(UTC)
    with Session(world.engine) as session, session.begin():
        session.execute(theirs.values(withdrawn_at=now))
    try:
        serve_bucket.fn(3, world.lake_url, snapshot)
        assert (find_online(person), find_online(other)) == (set(), before[1])
    finally:
        again = update(Consent).where(Consent.withdrawn_at == now).values(withdrawn_at=None)
        with Session(world.engine) as session, session.begin():
            session.execute(again)
    serve_bucket.fn(3, world.lake_url, snapshot)
    assert find_online(person) == before[0]


def test_nobody_has_two_rows_of_one_moment(tables):
    for name, rows in compute_views(tables, SNAPSHOT).items():
        assert rows.select(pl.struct(KEY).is_duplicated().any()).item() is False, name
        assert (rows["created_timestamp"] >= rows["event_timestamp"]).all()


def test_every_feature_a_view_declares_is_computed(tables):
    for name, rows in compute_views(tables, SNAPSHOT).items():
        assert {feature.name for feature in VIEWS[name].features} <= set(rows.columns)


def test_tables_lie_in_the_lake(monkeypatch, tmp_path):
    monkeypatch.setenv("LAKE_URL", "s3://bucket/lake/")
    assert locate_feature_table("x") == "s3://bucket/lake/features/x"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAKE_URL", "here")
    assert locate_feature_table("x") == f"{tmp_path}/here/features/x"
