"""POST /screen."""

import time

import structlog
from fastapi import APIRouter, Request
from sqlalchemy import event
from sqlalchemy.orm import Session

from feature_repo.pseudonyms import pseudonymise
from monitoring.metrics import (
    ALERTS_TRIGGERED,
    CONFIDENCE,
    DEGRADED_SCREENINGS,
    HUMAN_REVIEWS_QUEUED,
    RISK_SCORES,
    SCREENINGS,
)
from serving.answers import ScreeningAnswer
from serving.problems import describe_problems, read_request_id
from serving.records import Caller
from serving.requests import ScreeningRequest
from serving.scoring import Band, BandEdges
from serving.screening import Thresholds, screen
from serving.services import DbSession, Screener, WorkerServices
from serving.settings import Settings

log = structlog.get_logger("serving.screening")

router = APIRouter(tags=["screening"])


@router.post("/screen", responses=describe_problems(401, 403, 422, 500, 503, 504))
def screen_individual(
    body: ScreeningRequest,
    request: Request,
    principal: Screener,
    session: DbSession,
    services: WorkerServices,
) -> ScreeningAnswer:
    """Estimate one consenting individual's review priority, and record it."""
    settings = services.settings
    deadline = time.monotonic() + settings.screening_timeout
    anonymized_id = resolve_individual(body, settings)
    request.state.anonymized_id = anonymized_id
    answer = screen(
        session,
        body,
        anonymized_id,
        Caller(principal, read_request_id(request), deadline),
        services.releases.current,
        services.features,
        read_thresholds(settings),
    )
    report_after_commit(session, answer)
    return answer


def resolve_individual(body: ScreeningRequest, settings: Settings) -> str:
    """Return the pseudonym; an identifier is hashed here and goes no further."""
    if body.anonymized_id is not None:
        return body.anonymized_id
    assert body.patient_id is not None  # the request's own validation
    return pseudonymise(body.patient_id, settings.anonymization_salt.get_secret_value())


def read_thresholds(settings: Settings) -> Thresholds:
    return Thresholds(
        bands=BandEdges(
            low=settings.risk_threshold_low,
            moderate=settings.risk_threshold_moderate,
            high=settings.risk_threshold_high,
        ),
        human_review=settings.human_review_threshold,
    )


def report_after_commit(session: Session, answer: ScreeningAnswer) -> None:
    """Count and log the screening once it is recorded; a rolled-back one never happened."""

    @event.listens_for(session, "after_commit", once=True)
    def _report(_session: Session) -> None:
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
