"""The other release of a rollout scores beside the answer; its failures cost no answer."""

import time
import uuid
from datetime import UTC, datetime

import pytest
from sqlalchemy import create_engine, text

from feature_repo.online import Answers
from monitoring.metrics import SHADOW_SCORINGS
from serving.database.sessions import create_single_engine
from serving.errors import FlowActor
from serving.releases.watcher import Choice
from serving.scoring.assessment import Case, RuleFindings
from serving.scoring.crisis import find_sent_crisis
from serving.scoring.estimate import BandEdges
from serving.screening import shadow
from serving.screening.composition import Thresholds, compose_answer
from serving.screening.recorder import write_records
from serving.screening.records import Caller, make_record
from serving.screening.shadow import ShadowScorer, describe_shadow
from tests.fixtures.manifests import make_unloaded_release

THRESHOLDS = Thresholds(BandEdges(), 75)
BROKEN, WORKING = make_unloaded_release(2), make_unloaded_release(1)


def make_case():
    return Case(Answers(datetime.now(UTC), [0] * 8 + [1]), frozenset({"survey"}))


@pytest.fixture
def answer():
    findings = RuleFindings(find_sent_crisis(make_case().answers))
    return compose_answer("a" * 32, findings, None, ["release"], THRESHOLDS)


@pytest.fixture
def recorded(answer, database_url):
    """An answer whose rows are there, as they are when the other release begins to score."""
    caller = Caller(FlowActor("dr.who", "clinician"), None, time.monotonic() + 60)
    engine = create_single_engine(database_url, 5)
    write_records(engine, [make_record(answer, caller, frozenset({"survey"}), "production", {})])
    engine.dispose()
    return answer


@pytest.fixture
def counts():
    def read(outcome):
        return SHADOW_SCORINGS.labels(outcome)._value.get()

    before = {name: read(name) for name in ("dropped", "failed", "recorded", "not recorded")}
    return lambda: {name: read(name) - seen for name, seen in before.items() if read(name) != seen}


def score(engine, answer, choice):
    scorer = ShadowScorer(engine, THRESHOLDS)
    scorer.submit(answer, choice, make_case())
    scorer.close()


def test_without_a_second_release_nothing_is_scored(answer, counts, engine):
    score(engine, answer, Choice(WORKING))

    assert counts() == {}


@pytest.mark.parametrize(
    ("arm", "shadow_arm"), [("production", "candidate"), ("candidate", "production")]
)
def test_a_release_that_cannot_score_leaves_a_row_without_a_score(
    recorded, counts, engine, arm, shadow_arm
):
    score(engine, recorded, Choice(WORKING, arm, BROKEN))

    assert counts() == {"failed": 1}
    with engine.connect() as connection:
        query = text("SELECT * FROM shadow_predictions WHERE prediction_id = :id")
        row = connection.execute(query, {"id": recorded.prediction_id}).mappings().one()
    assert (row["release_version"], row["arm"]) == ("2", shadow_arm)
    assert (row["risk_score"], row["probability"], row["needs_review"]) == (None, None, None)
    assert row["error"] == "scoring-failed"


def test_a_database_that_is_away_is_counted(answer, counts):
    away = create_engine("postgresql+psycopg2://u:p@127.0.0.1:1/x")
    score(away, answer, Choice(WORKING, "production", BROKEN))

    assert counts() == {"not recorded": 1}


def test_an_unexpected_error_is_counted_and_ends_no_thread(recorded, counts, engine, monkeypatch):
    def fail(*_arguments):
        raise KeyError("a surprise")

    scorer = ShadowScorer(engine, THRESHOLDS)
    monkeypatch.setattr(shadow, "describe_shadow", fail)
    scorer.submit(recorded, Choice(WORKING, "production", BROKEN), make_case())
    scorer._pool.submit(monkeypatch.undo).result()
    scorer.submit(recorded, Choice(WORKING, "production", BROKEN), make_case())
    scorer.close()

    assert counts() == {"failed": 2}


def test_what_waits_beyond_the_room_is_dropped_and_counted(answer, counts, engine):
    scorer = ShadowScorer(engine, THRESHOLDS)
    for _ in range(shadow.MAX_WAITING):
        assert scorer._room.acquire(blocking=False)
    scorer.submit(answer, Choice(WORKING, "production", BROKEN), make_case())
    scorer.close()

    assert counts() == {"dropped": 1}


def test_a_row_names_the_screening_that_it_belongs_to(answer):
    row = describe_shadow(answer, BROKEN, "candidate", make_case(), THRESHOLDS)

    assert row["prediction_id"] == answer.prediction_id
    assert isinstance(answer.prediction_id, uuid.UUID)
    assert row["created_at"].tzinfo is UTC
