"""The guardrail flow on real PostgreSQL and MLflow: it stops what does harm, once, and tells."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import pytest
from sqlalchemy import delete
from sqlalchemy.orm import Session

from flows.guardrails import ACTOR, watch_candidate
from mlruns_config.registry import Registry, find_production, read_ledger
from mlruns_config.rollout import find_rollout, start_shadow, stop_rollout
from serving.database.tables import Prediction, ShadowPrediction
from serving.settings import get_settings
from tests.fixtures.webhook import webhook
from tests.mlruns_config.test_registry import go, list_ledger, register, registry, tracking_uri

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
    }.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    go(registry, register(registry))
    version = register(registry)
    go(registry, version, "Staging")
    start_shadow(registry, version, "ada", "a test")
    yield version
    if find_rollout(registry) is not None:
        stop_rollout(registry, "ada", "the test is over")
    with Session(registry.engine) as session, session.begin():
        session.execute(delete(Prediction))
    get_settings.cache_clear()


def screen(registry: Registry, candidate: int, shift: float, failures: int = 0) -> None:
    """Write screenings that Production answered and the candidate scored beside it."""
    with Session(registry.engine) as session, session.begin():
        for number in range(SCREENINGS):
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


def make_prediction(number: int) -> Prediction:
    score = float(number % 60)
    return Prediction(
        id=uuid.uuid4(),
        anonymized_id=uuid.uuid4().hex,
        created_at=datetime.now(UTC),
        user_id="dr.who",
        risk_score=score,
        probability=0.1,
        risk_band="low",
        confidence=0.8,
        needs_review=False,
        review_reasons=[],
        release_version="1",
        arm="production",
        answer={"model_score": score},
        inputs={},
    )


def test_without_a_candidate_there_is_nothing_to_stop(candidate, registry, webhook):
    stop_rollout(registry, "ada", "enough")
    before = list_ledger(registry)

    assert watch_candidate() == []
    assert list_ledger(registry) == before
    assert webhook.messages == []


def test_a_candidate_within_its_guardrails_goes_on(candidate, registry, webhook):
    screen(registry, candidate, shift=2.0)

    # Nobody has decided a case of the candidate: in shadow nobody can.
    assert watch_candidate() == []
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
    breaches = watch_candidate()

    assert reason in breaches
    assert find_rollout(registry) is None
    assert find_production(registry) is not None  # it answers everyone again
    entry = read_ledger(registry)[-1]
    assert (entry.version, entry.actor, entry.to_stage) == (candidate, ACTOR, "stopped")
    assert reason in entry.reason
    (message,) = webhook.messages
    assert f"release {candidate} was stopped" in message
    assert reason in message
    assert watch_candidate() == []  # once
    assert len(webhook.messages) == 1


def test_a_webhook_that_is_away_keeps_no_candidate_going(candidate, registry, webhook):
    screen(registry, candidate, shift=25.0)
    webhook.status = 500

    with pytest.raises(httpx.HTTPStatusError):
        watch_candidate()
    assert find_rollout(registry) is None


def test_without_a_webhook_nobody_is_told_and_the_candidate_stops(
    candidate,
    registry,
    caplog,
):
    screen(registry, candidate, shift=25.0)

    assert watch_candidate() != []
    assert "nobody was told" in caplog.text
    assert find_rollout(registry) is None
