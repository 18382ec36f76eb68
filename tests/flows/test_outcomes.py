"""What became of whom a release screened, joined to what it said, and learnt from next time."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from flows import outcomes
from flows.datasets.labels import derive_labels, find_last_day
from flows.datasets.loading import UNREADABLE, collect_entities
from flows.lake.consents import read_consented_types
from flows.lake.tables import scan_table
from flows.outcomes import collect_outcomes
from serving.database.tables import Prediction, PredictionLabel, ReviewItem
from tests.fixtures.trained_world import LAST_DAY, TrainedWorld

BUCKET = 0


@pytest.fixture
def world(in_trained_world: TrainedWorld, monkeypatch) -> Iterator[TrainedWorld]:
    """The world with one bucket to be labelled, without predictions before and after."""
    monkeypatch.setattr(outcomes, "BUCKET_COUNT", BUCKET + 1)
    yield in_trained_world
    with Session(in_trained_world.engine) as session, session.begin():
        for table in (ReviewItem, Prediction):
            session.execute(delete(table))


@pytest.fixture
def labelled(world: TrainedWorld) -> pl.DataFrame:
    """Index dates of the bucket with their labels, as training derives them."""
    surveys, events, adjudicated = (
        scan_table(world.lake_url, name, BUCKET).collect()
        for name in ("surveys", "emr_events", "outcomes")
    )
    consented = read_consented_types(world.engine, datetime.now(UTC))
    return derive_labels(
        surveys.join(consented.filter("survey"), on="anonymized_id", how="semi"),
        events.join(consented.filter("emr"), on="anonymized_id", how="semi"),
        adjudicated,
        find_last_day(world.lake_url),
    )


def predict(world: TrainedWorld, person: str, moment: datetime, total: float, **changes: Any):
    """Record a prediction as of a moment, with the PHQ-9 that came with it; return its id."""
    day = moment.timestamp() / 86400
    answers = {f"answered_phq9_{n}": min(3, max(0, total - 3 * n + 3)) for n in range(1, 10)}
    row = {
        "id": uuid.uuid4(),
        "anonymized_id": person,
        "created_at": datetime.now(UTC),
        "user_id": "dr.who",
        "risk_score": 10,
        "probability": 0.1,
        "risk_band": "low",
        "confidence": 0.8,
        "needs_review": False,
        "review_reasons": [],
        "release_version": "1",
        "arm": "production",
        "answer": {"model_score": 10},
        "inputs": {
            "features": {"phq9_total": total},
            "request": {"index_day": day} | answers,
        },
    }
    with Session(world.engine) as session, session.begin():
        session.execute(insert(Prediction), [row | changes])
    return row["id"]


def predict_all(world: TrainedWorld, index: pl.DataFrame) -> dict[uuid.UUID, bool]:
    """Record a prediction of every index date; return the label each should get."""
    totals = read_totals(world)
    return {
        predict(world, person, moment, totals[person, moment]): label
        for person, moment, label in index.select(
            "anonymized_id", "index_time", "adverse_course"
        ).iter_rows()
    }


def read_totals(world: TrainedWorld) -> dict[tuple[str, datetime], float]:
    surveys = scan_table(world.lake_url, "surveys", BUCKET).collect()
    asked = surveys.filter(pl.col("instrument") == "PHQ-9")
    items = [f"item_{n}" for n in range(1, 10)]
    rows = asked.select("anonymized_id", "answered_at", pl.sum_horizontal(items).cast(pl.Float64))
    return {(person, moment): total for person, moment, total in rows.iter_rows()}


def review(world: TrainedWorld, prediction_id: uuid.UUID, person: str, **decision: Any) -> None:
    now = datetime.now(UTC)
    with Session(world.engine) as session, session.begin():
        session.add(
            ReviewItem(
                id=uuid.uuid4(),
                prediction_id=prediction_id,
                anonymized_id=person,
                created_at=now,
                priority="low",
                reasons=["score"],
                status="decided",
                decided_by="dr.who",
                decided_at=now,
                **decision,
            )
        )


def read_labels(world: TrainedWorld, kind: str) -> dict[uuid.UUID, PredictionLabel]:
    with Session(world.engine) as session:
        rows = session.scalars(select(PredictionLabel).where(PredictionLabel.kind == kind))
        return {row.prediction_id: row for row in rows}


def collect(world: TrainedWorld):
    consented = read_consented_types(world.engine, datetime.now(UTC), ["training"])
    return collect_entities(world.engine, world.lake_url, consented)


# What is no outcome


def test_of_whom_nothing_is_known_since_there_is_no_outcome(world, labelled):
    person = labelled["anonymized_id"][0]
    predict(world, person, datetime.now(UTC), 5)
    counts = collect_outcomes()

    assert (counts.predictions, counts.labelled) == (1, 0)
    assert read_labels(world, "adverse_course") == {}


def test_an_outcome_waits_until_its_ninety_days_are_over(world, labelled):
    person = labelled["anonymized_id"][0]
    recent = datetime(LAST_DAY.year, LAST_DAY.month, LAST_DAY.day, tzinfo=UTC) - timedelta(days=80)
    predict(world, person, recent, 0)

    assert collect_outcomes().labelled == 0


def test_a_review_is_no_outcome(world, labelled):
    person = labelled["anonymized_id"][0]
    prediction_id = predict(world, person, datetime.now(UTC), 5)
    review(world, prediction_id, person, decision="override", new_band="high", reason_code="other")
    collect_outcomes()

    assert read_labels(world, "adverse_course") == {}
    label = read_labels(world, "review")[prediction_id]
    assert (label.source, label.reviewed_band, label.occurred) == ("clinician", "high", None)


# Outcomes


def test_a_prediction_gets_the_label_that_training_derives(world, labelled):
    expected = predict_all(world, labelled)
    counts = collect_outcomes()
    found = {number: row.occurred for number, row in read_labels(world, "adverse_course").items()}

    assert found == expected
    assert counts.labelled == len(expected) > 50
    assert counts.new_or_changed == 2 * counts.labelled  # a label of each outcome
    assert counts.adverse_courses == sum(expected.values()) > 5


def test_collecting_again_changes_nothing(world, labelled):
    predict_all(world, labelled.head(10))
    collect_outcomes()
    before = {
        number: row.settled_at for number, row in read_labels(world, "adverse_course").items()
    }
    again = collect_outcomes()

    assert (again.labelled, again.new_or_changed) == (10, 0)
    assert before == {
        number: row.settled_at for number, row in read_labels(world, "adverse_course").items()
    }


def test_predictions_beyond_the_look_back_are_left_alone(world, labelled):
    person, moment = labelled.select("anonymized_id", "index_time").row(0)
    predict(world, person, moment, 5, created_at=datetime.now(UTC) - timedelta(days=30))

    assert collect_outcomes(look_back_days=20).predictions == 0
    assert collect_outcomes(look_back_days=40).predictions == 1


# The next training


def test_answers_that_only_a_screening_delivered_are_learnt_from(world, labelled):
    before = collect(world)
    known = set(before.entities.select("anonymized_id", "index_date").iter_rows())
    consented = read_consented_types(world.engine, datetime.now(UTC), ["training"])
    allowed = set(consented.filter("survey")["anonymized_id"])
    person, moment = next(
        (person, moment + timedelta(days=1))
        for person, moment in labelled.select("anonymized_id", "index_time").iter_rows()
        if person in allowed and (person, (moment + timedelta(days=1)).date()) not in known
    )
    predict(world, person, moment, 7)
    collect_outcomes()
    after = collect(world)
    (row,) = after.entities.filter(
        pl.col("anonymized_id") == person, pl.col("index_date") == moment.date()
    ).to_dicts()

    assert after.screened == after.entities.height - before.entities.height == 1
    assert sum(row[f"answered_phq9_{n}"] for n in range(1, 10)) == 7
    assert abs(row["event_timestamp"] - moment) < timedelta(seconds=1)
    assert (
        row["adverse_course"] == next(iter(read_labels(world, "adverse_course").values())).occurred
    )
    assert len(after.futures) == after.entities.height


@pytest.mark.parametrize(
    "request_",
    [
        {},
        [],
        "yes",
        {"index_day": "soon", "reported_phq9_total": 9},
        {"index_day": 1e12, "reported_phq9_total": 9},
        {"index_day": 20_000, "reported_phq9_total": 9_000},
        {"index_day": 20_000, "reported_phq9_total": 9, "answered_phq9_1": True},
    ],
)
def test_a_stored_request_that_is_no_answers_is_left_out_and_counted(world, labelled, request_):
    before = collect(world)
    person, moment = labelled.select("anonymized_id", "index_time").row(0)
    inputs = {"features": {}, "request": request_}
    prediction_id = predict(world, person, moment, 5, inputs=inputs)
    with Session(world.engine) as session, session.begin():
        label = {"kind": "adverse_course", "source": "observed", "occurred": True}
        label |= {"prediction_id": prediction_id, "anonymized_id": person}
        session.add(PredictionLabel(settled_at=datetime.now(UTC), **label))
    after = collect(world)

    assert after.entities.equals(before.entities)
    assert after.excluded[UNREADABLE] == before.excluded[UNREADABLE] + 1


def test_an_index_date_of_the_lake_is_not_learnt_from_twice(world, labelled):
    predict_all(world, labelled.head(10))
    collect_outcomes()

    assert collect(world).screened == 0


def test_without_consent_to_training_a_screening_is_not_learnt_from(world, labelled):
    consented = read_consented_types(world.engine, datetime.now(UTC), ["training"])
    refusing = set(labelled["anonymized_id"]) - set(consented.filter("survey")["anonymized_id"])
    for person, moment in labelled.select("anonymized_id", "index_time").iter_rows():
        if person in refusing:
            predict(world, person, moment + timedelta(days=1), 7)

    assert collect_outcomes().labelled > 0
    assert collect(world).screened == 0


@pytest.mark.parametrize(
    ("reason", "left_out"),
    [("answers_misunderstood", 1), ("data_wrong_or_old", 1), ("clinical_assessment", 0)],
)
def test_what_a_reviewer_found_to_be_wrong_is_not_learnt_from(world, reason, left_out):
    before = collect(world).entities
    person, moment = before.select("anonymized_id", "event_timestamp").row(0)
    prediction_id = predict(world, person, moment, 5)
    decision = {"decision": "override", "new_band": "high", "reason_code": reason}
    review(world, prediction_id, person, **decision)
    collect_outcomes()
    after = collect(world)

    assert after.doubted == before.height - after.entities.height == left_out
