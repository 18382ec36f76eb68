"""What a recorded screening leaves in metrics and log; a rolled-back one never happened."""

import structlog

from monitoring.metrics import (
    ALERTS_TRIGGERED,
    CONFIDENCE,
    DEGRADED_SCREENINGS,
    HUMAN_REVIEWS_QUEUED,
    RISK_SCORES,
    SCREENINGS,
)
from serving.answers import ScreeningAnswer
from serving.scoring import Band

log = structlog.get_logger("serving.screening")


def report_screening(answer: ScreeningAnswer) -> None:
    count(answer)
    log.info(
        "screening request completed",
        anonymized_id=answer.anonymized_id,
        risk_score=answer.risk_score,
        needs_review=answer.needs_review,
        release=answer.release.version if answer.release else None,
    )


def count(answer: ScreeningAnswer) -> None:
    SCREENINGS.labels(answer.risk_band.value).inc()
    CONFIDENCE.observe(answer.confidence)
    # The models' distribution: the crisis rule's 100 would read as drift.
    if answer.model_score is not None:
        RISK_SCORES.observe(answer.model_score)
    if answer.risk_band is Band.CRITICAL:
        ALERTS_TRIGGERED.labels(answer.decided_by).inc()
    if answer.needs_review:
        HUMAN_REVIEWS_QUEUED.labels(answer.risk_band.value).inc()
    for dependency in answer.degraded:
        DEGRADED_SCREENINGS.labels(dependency).inc()
