"""What is older than the site keeps it goes, open reviews excepted; without a setting all stays."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from flows.lake.merging import merge_rows
from flows.lake.tables import scan_table
from flows.retention import apply_retention, list_dated_tables
from flows.sources.contract import CONSENTS, PEOPLE, TABLES
from serving.database.tables import Consent, Prediction, ReviewEvent, ReviewItem
from serving.settings import get_settings
from tests.fixtures.landed_tables import make_table
from tests.fixtures.trained_world import enter_environment, forget_settings, make_variables

PERSON = "0" * 31 + "a"
NOW = datetime.now(UTC)
OLD, RECENT = NOW - timedelta(days=400), NOW - timedelta(days=10)


@pytest.fixture(scope="module")
def variables(postgres, prefect_server, tmp_path_factory):
    return make_variables(postgres, tmp_path_factory.mktemp("retention"))


@pytest.fixture
def world(variables, monkeypatch):
    """A person with old and recent rows in the lake and the database."""
    enter_environment(monkeypatch, variables)
    engine = create_engine(variables["DATABASE_URL"])
    fill_lake(variables["LAKE_URL"])
    with Session(engine) as session, session.begin():
        session.merge(make_consent())
        for moment, status in ((OLD, "decided"), (OLD, "pending"), (RECENT, "decided")):
            add_prediction(session, moment, status)
    yield engine
    with Session(engine) as session, session.begin():
        for table in (ReviewEvent, ReviewItem, Prediction):
            session.query(table).delete()
    engine.dispose()
    forget_settings()


def fill_lake(lake_url):
    common = {"anonymized_id": PERSON, "bucket": 10, "available_at": NOW, "ingested_at": NOW}
    surveys = [
        common | {"instrument": "PHQ-9", "answered_at": moment, "item_1": 1}
        for moment in (OLD, RECENT)
    ]
    days = [common | {"date": moment.date(), "steps": 1000.0} for moment in (OLD, RECENT)]
    merge_rows(lake_url, "surveys", make_table("surveys", *surveys))
    merge_rows(lake_url, "wearable_days", make_table("wearable_days", *days))


def make_consent():
    return Consent(
        anonymized_id=PERSON,
        granted_at=NOW - timedelta(days=500),
        expires_at=NOW + timedelta(days=100),
        data_types=["survey"],
        purposes=["screening"],
        key_id="00000000",
    )


def add_prediction(session, moment, status):
    number, review = uuid.uuid4(), uuid.uuid4()
    session.add(
        Prediction(
            id=number,
            anonymized_id=PERSON,
            created_at=moment,
            user_id="u",
            risk_score=50.0,
            outcome="adverse_course_v1",
            risk_band="high",
            confidence=0.5,
            needs_review=True,
            review_reasons=["score"],
            arm="production",
            answer={},
            inputs={},
        )
    )
    session.flush()
    session.add(
        ReviewItem(
            id=review,
            prediction_id=number,
            anonymized_id=PERSON,
            created_at=moment,
            priority="high",
            reasons=["score"],
            crisis_level=0,
            risk_score=50.0,
            status=status,
            due_at=moment,
        )
    )
    session.add(
        ReviewEvent(
            review_id=review,
            anonymized_id=PERSON,
            created_at=moment,
            user_id="u",
            action="claimed",
        )
    )


def set_retention(monkeypatch, **days):
    for name, value in days.items():
        monkeypatch.setenv(f"RETENTION_{name.upper()}_DAYS", str(value))
    get_settings.cache_clear()


def count(engine, table):
    with Session(engine) as session:
        return len(session.scalars(select(table)).all())


@pytest.mark.parametrize("days", ["0", "89", "many"])
def test_a_time_shorter_than_the_follow_up_is_refused(world, monkeypatch, days):
    set_retention(monkeypatch, prediction=days)
    with pytest.raises(RuntimeError, match="RETENTION_PREDICTION_DAYS"):
        apply_retention.fn()


def test_without_a_setting_everything_stays(world, variables):
    assert apply_retention() == []
    assert count(world, Prediction) == 3
    assert scan_table(variables["LAKE_URL"], "surveys").collect().height == 2


def test_old_predictions_go_with_their_reviews_unless_one_is_open(world, monkeypatch):
    set_retention(monkeypatch, prediction=365)
    (removed,) = apply_retention()

    assert (removed.table, removed.removed) == ("predictions", 1)
    assert count(world, Prediction) == count(world, ReviewItem) == count(world, ReviewEvent) == 2
    assert apply_retention()[0].removed == 0


def test_old_rows_of_the_lake_go_and_recent_ones_stay(world, variables, monkeypatch):
    set_retention(monkeypatch, lake=365)
    removed = {one.table: one.removed for one in apply_retention()}

    assert (removed["surveys"], removed["wearable_days"]) == (1, 1)
    left = scan_table(variables["LAKE_URL"], "surveys").collect()
    assert left["answered_at"].to_list() == [RECENT]
    assert scan_table(variables["LAKE_URL"], "wearable_days").collect().height == 1


def test_every_table_of_dated_rows_is_under_it():
    dated = set(TABLES) - {PEOPLE.name, CONSENTS.name}
    assert dated <= set(list_dated_tables())
