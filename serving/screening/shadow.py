"""Scores each case with the other release of a rollout, which is recorded and not answered.

It runs after the answer, in a thread of its own: a slow or failing candidate costs no
answer. The guardrails of a rollout compare its results.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import structlog
from sqlalchemy import Engine, insert
from sqlalchemy.exc import SQLAlchemyError

from monitoring.logging import describe_error
from monitoring.metrics import SHADOW_SCORINGS
from serving.database.tables import ShadowPrediction
from serving.errors import ScoringFailedError
from serving.releases.watcher import Choice
from serving.scoring.assessment import Case, estimate_alone
from serving.scoring.loaded_release import Release
from serving.screening.answers import ScreeningAnswer
from serving.screening.composition import Thresholds, wants_review

log = structlog.get_logger("serving.screening")

#: Scorings that may wait; beyond it they are dropped and counted.
MAX_WAITING = 200


class ShadowScorer:
    """One thread that scores and writes; what it cannot take in time is dropped and counted."""

    def __init__(self, engine: Engine, thresholds: Thresholds) -> None:
        self._engine = engine
        self._thresholds = thresholds
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="shadow")
        self._room = threading.BoundedSemaphore(MAX_WAITING)

    def submit(self, answer: ScreeningAnswer, choice: Choice, case: Case) -> None:
        """Score a case with the release that did not answer it, later."""
        if choice.shadow is None:
            return
        if not self._room.acquire(blocking=False):
            SHADOW_SCORINGS.labels("dropped").inc()
            return
        arm = "candidate" if choice.arm == "production" else "production"
        self._pool.submit(self._score, answer, choice.shadow, arm, case)

    def close(self) -> None:
        self._pool.shutdown(wait=True)

    def _score(self, answer: ScreeningAnswer, release: Release, arm: str, case: Case) -> None:
        try:
            row = describe_shadow(answer, release, arm, case, self._thresholds)
            with self._engine.begin() as connection:
                connection.execute(insert(ShadowPrediction), row)
        except SQLAlchemyError as error:
            log.warning("shadow scoring not recorded", cause=type(error).__name__)
            SHADOW_SCORINGS.labels("not recorded").inc()
        except Exception as error:
            log.error("shadow scoring failed", error=describe_error(error))
            SHADOW_SCORINGS.labels("failed").inc()
        else:
            SHADOW_SCORINGS.labels("failed" if row["error"] else "recorded").inc()
        finally:
            self._room.release()


def describe_shadow(
    answer: ScreeningAnswer, release: Release, arm: str, case: Case, thresholds: Thresholds
) -> dict[str, Any]:
    """Return the row of the result of `release`, or of its failure."""
    row: dict[str, Any] = {
        "prediction_id": answer.prediction_id,
        "created_at": datetime.now(UTC),
        "release_version": str(release.version),
        "arm": arm,
        "risk_score": None,
        "probability": None,
        "needs_review": None,
        "error": None,
    }
    try:
        estimate = estimate_alone(release, case)
    # Whichever part of a release fails: the guardrails count the failures that are recorded.
    except Exception as error:
        log.error("shadow scoring failed", version=release.version, error=describe_error(error))
        return row | {"error": ScoringFailedError.kind}
    return row | {
        "risk_score": estimate.score,
        "probability": estimate.probability,
        "needs_review": wants_review(estimate, thresholds),
    }
