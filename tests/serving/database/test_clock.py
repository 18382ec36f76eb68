"""Consents begin and end by the database's clock, whatever a pod's own clock shows."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from serving.database import clock
from serving.database.clock import DatabaseClock, read_database_time
from serving.database.tables import Consent
from tests.fixtures.api import LOW_ANSWERS


@pytest.fixture
def engine(database_url):
    engine = create_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture(params=[-1, 1], ids=["behind", "ahead"])
def step_clock(request, monkeypatch):
    """Put this process's clock, as the module reads it, an hour wrong where called."""

    class WrongClock(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(hours=request.param)

    return lambda: monkeypatch.setattr(clock, "datetime", WrongClock)


@pytest.fixture
def wrong_clock(step_clock):
    step_clock()


def test_a_wrong_clock_is_corrected_by_the_database(engine, wrong_clock):
    measured = DatabaseClock()
    with Session(engine) as session:
        measured.measure(session)
        assert abs(measured.now() - read_database_time(session)) < timedelta(seconds=5)


def test_a_step_of_this_machines_clock_changes_nothing_between_measurements(engine, step_clock):
    measured = DatabaseClock()
    with Session(engine) as session:
        measured.measure(session)
        step_clock()
        assert abs(measured.now() - read_database_time(session)) < timedelta(seconds=5)


@pytest.mark.parametrize("ends_in_minutes", [-10, 10])
def test_a_consent_ends_by_the_databases_clock(
    client, engine, screen, grant, wrong_clock, ends_in_minutes
):
    individual = grant()
    with Session(engine) as session, session.begin():
        for consent in session.query(Consent).filter_by(anonymized_id=individual):
            consent.granted_at = datetime.now(UTC) - timedelta(days=30)
            consent.expires_at = datetime.now(UTC) + timedelta(minutes=ends_in_minutes)

    assert screen(individual, LOW_ANSWERS).status_code == (200 if ends_in_minutes > 0 else 403)
