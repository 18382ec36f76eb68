"""What a recorded screening leaves in the metrics; a rolled-back one never happened."""

from monitoring.metrics import (
    ALERTS_TRIGGERED,
    CONFIDENCE,
    DEGRADED_SCREENINGS,
    HUMAN_REVIEWS_QUEUED,
    RISK_SCORES,
    SCREENINGS,
    get_series,
)
from serving.scoring.estimate import Band
from serving.screening.answers import ScreeningAnswer


def count_screening(answer: ScreeningAnswer) -> None:
    """Count a screening that is recorded."""
    get_series(SCREENINGS, answer.risk_band.value).inc()
    CONFIDENCE.observe(answer.confidence)
    # The models' distribution: the crisis rule's 100 would read as drift.
    if answer.model_score is not None:
        RISK_SCORES.observe(answer.model_score)
    if answer.risk_band is Band.CRITICAL:
        get_series(ALERTS_TRIGGERED, answer.decided_by).inc()
    if answer.needs_review:
        get_series(HUMAN_REVIEWS_QUEUED, answer.risk_band.value).inc()
    for dependency in answer.degraded:
        get_series(DEGRADED_SCREENINGS, dependency).inc()
