"""POST /screen and POST /screen/batch."""

import time
from datetime import timedelta
from typing import Annotated

import structlog
from fastapi import APIRouter, Header, Request, Response
from starlette.concurrency import run_in_threadpool

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
from serving.idempotency import claim_key, give_up_key, hash_body
from serving.problems import describe_problems, read_request_id
from serving.records import Caller
from serving.requests import IDEMPOTENCY_KEY, ScreeningRequest
from serving.scoring import Band
from serving.screening import screen
from serving.services import Screener, Services, WorkerServices
from serving.settings import Settings
from serving.strict_json import StrictJsonRoute

log = structlog.get_logger("serving.screening")

router = APIRouter(tags=["screening"], route_class=StrictJsonRoute)

IdempotencyKey = Annotated[
    str | None,
    Header(
        pattern=IDEMPOTENCY_KEY,
        description="A name of your own for this request: sent again within 24 hours with the "
        "same body, it gets the same answer and screens nobody twice.",
    ),
]


@router.post(
    "/screen",
    response_model=ScreeningAnswer,
    responses=describe_problems(401, 403, 409, 413, 422, 429, 500, 503, 504),
)
async def screen_individual(
    body: ScreeningRequest,
    request: Request,
    principal: Screener,
    services: WorkerServices,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Estimate one consenting individual's review priority, and record it."""
    deadline = time.monotonic() + services.settings.screening_timeout
    anonymized_id = resolve_individual(body, services.settings)
    request.state.anonymized_id = anonymized_id
    caller = Caller(principal, read_request_id(request), deadline, idempotency_key)
    if idempotency_key is None:
        answer = await screen_and_report(body, anonymized_id, caller, services)
    else:
        answer = await screen_once(body, anonymized_id, caller, services)
    # Written once, here: FastAPI would validate and walk the finished answer again.
    return Response(answer.model_dump_json(), media_type="application/json")


async def screen_once(
    body: ScreeningRequest, anonymized_id: str, caller: Caller, services: Services
) -> ScreeningAnswer:
    """Answer a request with an idempotency key: from the record, or by screening once."""
    assert caller.idempotency_key is not None
    user, key = caller.principal.user_id, caller.idempotency_key
    said = body.model_dump_json(exclude={"patient_id", "anonymized_id"})
    digest = hash_body(anonymized_id, said)
    patience = timedelta(seconds=2 * services.settings.screening_timeout)
    known = await run_in_threadpool(claim_key, services.engine, user, key, digest, patience)
    if known is not None:
        return ScreeningAnswer.model_validate(known)
    try:
        return await screen_and_report(body, anonymized_id, caller, services)
    except BaseException:
        await run_in_threadpool(give_up_key, services.engine, user, key)
        raise


async def screen_and_report(
    body: ScreeningRequest, anonymized_id: str, caller: Caller, services: Services
) -> ScreeningAnswer:
    """Screen, then count and log what is recorded."""
    answer = await screen(body, anonymized_id, caller, services)
    count(answer)
    log.info(
        "screening request completed",
        anonymized_id=answer.anonymized_id,
        risk_score=answer.risk_score,
        needs_review=answer.needs_review,
        release=answer.release.version if answer.release else None,
    )
    return answer


def resolve_individual(body: ScreeningRequest, settings: Settings) -> str:
    """Return the pseudonym; an identifier is hashed here and goes no further."""
    if body.anonymized_id is not None:
        return body.anonymized_id
    assert body.patient_id is not None  # the request's own validation
    return pseudonymise(body.patient_id, settings.anonymization_salt.get_secret_value())


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
