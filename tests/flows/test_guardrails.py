"""The guardrail flow on real PostgreSQL and MLflow: it stops what does harm, once, and tells."""

import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from flows.guardrails import ACTOR, watch_releases
from flows.runtime import notifications as notify
from mlruns_config.registry.rollout import find_rollout, stop_rollout
from mlruns_config.registry.transitions import Registry, find_production, read_ledger
from mlruns_config.rollout_plan import load_plan
from serving.database.tables import Prediction, ReviewItem
from tests.fixtures.rollouts import SCREENINGS, candidate, make_prediction, screen
from tests.fixtures.small_registry import go, list_ledger, registry, tracking_uri
from tests.fixtures.webhook import webhook

__all__ = ["candidate", "registry", "tracking_uri", "webhook"]


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
    assert re.search(r"notification .*not (sent|delivered)", caplog.text)
    assert find_rollout(registry) is None
