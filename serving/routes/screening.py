"""POST /screen and POST /screen/batch."""

from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from starlette.concurrency import run_in_threadpool

from serving.audit import Event, record
from serving.audit.trail import PREDICTION_VIEW
from serving.database.sessions import open_session
from serving.dependencies import Screener, WorkerServices
from serving.errors import DeadlineExceededError, ProblemError
from serving.http.individual import resolve_individual
from serving.http.problems import describe_problems, read_request_id
from serving.http.strict_json import StrictJsonRoute
from serving.scoring.crisis import find_sent_crisis
from serving.screening.answers import ScreeningAnswer
from serving.screening.batch import BatchAnswer, BatchRequest, screen_batch
from serving.screening.idempotency import claim_key, give_up_key, hash_body
from serving.screening.records import Caller
from serving.screening.requests import IDEMPOTENCY_KEY, ScreeningRequest
from serving.screening.screen import find_deadline, make_answers, require_consent, screen
from serving.services import Services

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
    deadline = find_deadline(services.settings)
    anonymized_id = resolve_individual(body, services.settings)
    request.state.log_fields = {"anonymized_id": anonymized_id}
    caller = Caller(principal, read_request_id(request), deadline, idempotency_key)
    if idempotency_key is None:
        answer = await screen(body, anonymized_id, caller, services.screening)
    else:
        answer = await screen_once(body, anonymized_id, caller, services)
    request.state.log_message = "screening request completed"
    request.state.log_fields |= describe_answer(answer)
    # Written once, here: FastAPI would validate and walk the finished answer again.
    return Response(answer.model_dump_json(), media_type="application/json")


@router.post(
    "/screen/batch",
    response_model=BatchAnswer,
    responses=describe_problems(401, 403, 413, 422, 429, 500, 503, 504),
)
async def screen_individuals(
    body: BatchRequest, request: Request, principal: Screener, services: WorkerServices
) -> Response:
    """Screen up to 1,000 individuals; each item is answered or refused by itself."""
    answer = await screen_batch(body.items, principal, read_request_id(request), services.screening)
    return Response(answer.model_dump_json(), media_type="application/json")


def describe_answer(answer: ScreeningAnswer) -> dict[str, Any]:
    """Return what the request's log line holds of its answer: no score beside a pseudonym."""
    return {
        "needs_review": answer.needs_review,
        "release": answer.release.version if answer.release else None,
    }


async def screen_once(
    body: ScreeningRequest, anonymized_id: str, caller: Caller, services: Services
) -> ScreeningAnswer:
    """Answer a request with an idempotency key: from the record, or by screening once."""
    assert caller.idempotency_key is not None
    user, key = caller.principal.user_id, caller.idempotency_key
    said = body.model_dump_json(exclude={"patient_id", "anonymized_id"})
    digest = hash_body(anonymized_id, said)
    patience = timedelta(seconds=2 * services.settings.screening_timeout)
    try:
        known = await run_in_threadpool(claim_key, services.engine, user, key, digest, patience)
    except ProblemError as error:
        error.shows_guidance = find_sent_crisis(make_answers(body)).forces_top_band
        raise
    if known is not None:
        return await replay(ScreeningAnswer.model_validate(known), body, caller, services)
    try:
        return await screen(body, anonymized_id, caller, services.screening)
    except DeadlineExceededError:
        raise  # it may yet be recorded under the key, which a repetition then finds
    except Exception:
        await run_in_threadpool(give_up_key, services.engine, user, key)
        raise


async def replay(
    answer: ScreeningAnswer, body: ScreeningRequest, caller: Caller, services: Services
) -> ScreeningAnswer:
    """Return a recorded answer again: under the consent of now, and audited as a viewing."""
    person = answer.anonymized_id
    await require_consent(body, person, caller.principal, services.screening)
    details = {"prediction_id": str(answer.prediction_id)}
    event = Event(PREDICTION_VIEW, "replay_screening", person, ["prediction"], details)
    await run_in_threadpool(record_viewing, services, caller, event)
    return answer


def record_viewing(services: Services, caller: Caller, event: Event) -> None:
    with open_session(services.engine) as session:
        record(session, caller.principal, caller.request_id, event)
