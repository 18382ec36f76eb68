"""A prediction whose numbers are none, written with the API's login, stops no outcome join."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from feature_repo.pseudonyms import assign_bucket
from flows.lake.spans import EVERYBODY
from flows.outcomes import read_predictions
from serving.database.tables import Prediction

PERSON, NOW = "ab" * 16, datetime.now(UTC)


@pytest.mark.parametrize(
    ("odd", "day"),
    [
        ("x", None),
        (True, None),
        ([1], None),
        ({}, None),
        (10**14, None),
        (10**5_00, None),
        (-3, None),
        (1e-320, None),
        (0.5, "1970-01-01"),
    ],
    ids=lambda value: str(value)[:8],
)
def test_the_others_are_read_and_the_odd_one_has_the_day_of_its_screening(database_url, odd, day):
    inputs = {"features": {"phq9_total": odd}, "request": {"index_day": odd}}
    plain = {"features": {"phq9_total": 7.0}, "request": {"index_day": 20_000.5}}
    engine = create_engine(database_url)
    with Session(engine) as session, session.begin():
        session.query(Prediction).delete()
        session.add_all([make(inputs), make(plain)])
    read = read_predictions(engine, assign_bucket(PERSON), EVERYBODY, NOW - timedelta(days=1))
    engine.dispose()

    dates = {str(one) for one in read["index_date"]}
    assert dates == {"2024-10-04", day or str(NOW.date())}
    assert 7.0 in read["total"]


def make(inputs):
    return Prediction(
        id=uuid.uuid4(),
        anonymized_id=PERSON,
        created_at=NOW,
        user_id="u",
        risk_score=50.0,
        probability=0.5,
        outcome="adverse_course_v1",
        risk_band="high",
        confidence=0.5,
        needs_review=True,
        review_reasons=["score"],
        arm="production",
        answer={},
        inputs=inputs,
    )
