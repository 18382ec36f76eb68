"""The guardrail flow on real PostgreSQL and MLflow: it stops what does harm, once, and tells."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from flows.guardrails import ACTOR, watch_releases
from flows.runtime import notifications as notify
from mlruns_config.registry.rollout import find_rollout, start_shadow, stop_rollout
from mlruns_config.registry.transitions import Registry, find_production, read_ledger
from mlruns_config.rollout_plan import load_plan
from serving.database.tables import Prediction, ReviewItem, ShadowPrediction
from serving.settings import get_settings
from tests.fixtures.small_registry import go, list_ledger, register, registry, tracking_uri
from tests.fixtures.webhook import webhook

__all__ = ["registry", "tracking_uri", "webhook"]

SCREENINGS = 250


@pytest.fixture
def candidate(
    registry: Registry,  # a fixture
    tracking_uri: str,
    prefect_server: None,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[int]:
    """A candidate in shadow beside a Production release."""
    for name, value in {
        "DATABASE_URL": registry.engine.url.render_as_string(hide_password=False),
        "MLFLOW_TRACKING_URI": tracking_uri,
        "ANONYMIZATION_SALT": "a salt for tests, 256 bit or more of it",
        "AUDIT_SIGNING_KEY": "c2lnbmluZy1rZXktb2YtdGVzdHMtMzItYnl0ZXMhISE=",
        "JWT_SECRET_KEY": "a secret for tests, 256 bit or more of it",
        "MHRAS_ENV": "development",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("mlruns_config.registry.transitions.load_gates", lambda: registry.gates)
    get_settings.cache_clear()
    go(registry, register(registry))
    version = register(registry)
    go(registry, version, "Staging")
    start_shadow(registry, version, "ada", "a test")
    yield version
    if find_rollout(registry) is not None:
        stop_rollout(registry, "ada", "the test is over")
    with Session(registry.engine) as session, session.begin():
        session.execute(delete(ReviewItem))
        session.execute(delete(Prediction))
    get_settings.cache_clear()


def screen(
    registry: Registry,
    candidate: int,
    shift: float,
    failures: int = 0,
    screenings: int = SCREENINGS,
) -> None:
    """Write screenings that Production answered and the candidate scored beside it."""
    with Session(registry.engine) as session, session.begin():
        for number in range(screenings):
            prediction = make_prediction(number)
            session.add(prediction)
            failed = number < failures
            session.add(
                ShadowPrediction(
                    prediction_id=prediction.id,
                    created_at=prediction.created_at,
                    release_version=str(candidate),
                    arm="candidate",
                    risk_score=None if failed else prediction.risk_score + shift,
                    probability=None if failed else 0.1,
                    needs_review=None if failed else False,
                    error="ScoringFailedError" if failed else None,
                )
            )


def make_prediction(number: int, version: int = 1, **changes: Any) -> Prediction:
    score = float(number % 60)
    facts: dict[str, Any] = {
        "id": uuid.uuid4(),
        "anonymized_id": uuid.uuid4().hex,
        "created_at": datetime.now(UTC),
        "user_id": "dr.who",
        "risk_score": score,
        "probability": 0.1,
        "risk_band": "low",
        "confidence": 0.8,
        "needs_review": False,
        "review_reasons": [],
        "release_version": str(version),
        "arm": "production",
        "answer": {"model_score": score},
        "inputs": {},
    }
    return Prediction(**(facts | changes))


def test_without_a_candidate_there_is_nothing_to_stop(candidate, registry, webhook):
    stop_rollout(registry, "ada", "enough")
    before = list_ledger(registry)

    assert watch_releases() == []
    assert list_ledger(registry) == before
    assert webhook.messages == []


def test_a_candidate_within_its_guardrails_goes_on(candidate, registry, webhook):
    screen(registry, candidate, shift=2.0)

    # Nobody has decided a case of the candidate: in shadow nobody can.
    assert watch_releases() == []
    assert find_rollout(registry).version == candidate
    assert webhook.messages == []


@pytest.mark.parametrize(
    ("shift", "failures", "reason"),
    [(25.0, 0, "score_shift is 25, above 10"), (0.0, 5, "error_rate is 0.02, above 0.005")],
)
def test_a_candidate_that_does_harm_is_stopped_recorded_and_told(
    candidate, registry, webhook, shift, failures, reason
):
    screen(registry, candidate, shift, failures)
    breaches = watch_releases()

    assert reason in breaches
    assert find_rollout(registry) is None
    assert find_production(registry) is not None  # it answers everyone again
    entry = read_ledger(registry)[-1]
    assert (entry.version, entry.actor, entry.to_stage) == (candidate, ACTOR, "stopped")
    assert reason in entry.reason
    stopped, ended = webhook.messages
    assert f"release {candidate} was stopped" in stopped
    assert reason in stopped
    assert "flow guardrails completed" in ended
    assert watch_releases() == []  # once
    assert len(webhook.messages) == 2


# A release that is new in Production


def answer(registry: Registry, version: int, days_ago: float, **changes: Any) -> None:
    """Write screenings that a release answered, as Production."""
    moment = datetime.now(UTC) - timedelta(days=days_ago)
    with Session(registry.engine) as session, session.begin():
        for number in range(SCREENINGS):
            session.add(make_prediction(number, version, created_at=moment, **changes))


def decide(registry: Registry, version: int, decision: str, cases: int = 40) -> None:
    """Let clinicians decide cases of a release."""
    with Session(registry.engine) as session, session.begin():
        known = select(Prediction).where(Prediction.release_version == str(version)).limit(cases)
        for prediction in session.scalars(known).all():
            session.add(
                ReviewItem(
                    id=uuid.uuid4(),
                    prediction_id=prediction.id,
                    anonymized_id=prediction.anonymized_id,
                    created_at=prediction.created_at,
                    priority="low",
                    reasons=["score"],
                    status="decided",
                    decision=decision,
                )
            )


@pytest.fixture
def promoted(candidate: int, registry: Registry) -> tuple[int, int]:
    """A release that has just become Production, and its predecessor, which answered before."""
    predecessor = find_production(registry)
    assert predecessor is not None
    answer(registry, predecessor, days_ago=3)
    go(registry, candidate)
    return candidate, predecessor


def test_a_new_production_release_like_its_predecessor_stays(promoted, registry, webhook):
    answer(registry, promoted[0], days_ago=0)

    assert watch_releases() == []
    assert find_production(registry) == promoted[0]
    assert webhook.messages == []


@pytest.mark.parametrize(
    ("changes", "decision", "reason"),
    [
        ({"answer": {"model_score": 80.0}}, "agree", "mean_shift is"),
        ({"review_reasons": ["score"]}, "agree", "review_share_gain is 1, above 0.1"),
        ({}, "override", "override_rate_gain is 1, above 0.1"),
        ({"release_version": None}, "agree", "unscored_rate is 1, above 0.005"),
    ],
)
def test_a_new_production_release_that_does_harm_is_rolled_back(
    promoted, registry, webhook, changes, decision, reason
):
    version, predecessor = promoted
    decide(registry, predecessor, "agree")
    answer(registry, version, days_ago=0, **changes)
    decide(registry, version, decision)
    breaches = watch_releases()

    assert any(reason in breach for breach in breaches)
    assert find_production(registry) == predecessor
    entry = read_ledger(registry)[-1]
    assert (entry.version, entry.actor) == (predecessor, ACTOR)
    assert reason in entry.reason
    (message,) = [one for one in webhook.messages if "rolled back" in one]
    assert f"release {version} was rolled back to release {predecessor}: " in message
    # What is known is not watched: the predecessor's own successor-like change rolls nothing back.
    assert watch_releases() == []
    assert find_production(registry) == predecessor


def test_batches_are_not_compared_with_what_was_asked_for(promoted, registry, webhook):
    answer(registry, promoted[0], days_ago=0)
    answer(registry, promoted[0], days_ago=0, batch="everybody", answer={"model_score": 99.0})

    assert watch_releases() == []
    assert find_production(registry) == promoted[0]


def test_after_the_watch_a_release_stays(promoted, registry, monkeypatch):
    answer(registry, promoted[0], days_ago=0, answer={"model_score": 80.0})
    plan = load_plan()
    over = plan.model_copy(update={"watch": plan.watch.model_copy(update={"hours": 1e-9})})
    monkeypatch.setattr("flows.guardrails.load_plan", lambda: over)

    assert watch_releases() == []
    assert find_production(registry) == promoted[0]


def test_a_webhook_that_is_away_keeps_no_candidate_going(candidate, registry, webhook, monkeypatch):
    monkeypatch.setattr(notify, "deliver", notify.deliver.with_options(retries=0))
    screen(registry, candidate, shift=25.0)
    webhook.status = 500

    assert watch_releases() != []
    assert find_rollout(registry) is None


def test_without_a_webhook_nobody_is_told_and_the_candidate_stops(
    candidate,
    registry,
    caplog,
):
    screen(registry, candidate, shift=25.0)

    assert watch_releases() != []
    assert "nobody was told" in caplog.text
    assert find_rollout(registry) is None
