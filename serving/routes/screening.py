"""POST /screen and POST /screen/batch."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response

from serving.dependencies import Screener, WorkerServices
from serving.http.individual import resolve_individual
from serving.http.problems import describe_problems, read_request_id
from serving.http.strict_json import StrictJsonRoute
from serving.screening.answers import ScreeningAnswer
from serving.screening.batch import BatchAnswer, BatchRequest, screen_batch
from serving.screening.examples import EXAMPLE_ANSWER
from serving.screening.records import Caller
from serving.screening.repetition import screen_once
from serving.screening.requests import IDEMPOTENCY_KEY, ScreeningRequest
from serving.screening.screen import find_deadline, screen

router = APIRouter(tags=["screening"], route_class=StrictJsonRoute)

IdempotencyKey = Annotated[
    str | None,
    Header(
        pattern=IDEMPOTENCY_KEY,
        description="Your own name for this request. Repeating the request within 24 hours "
        "returns the original result.",
    ),
]


@router.post(
    "/screen",
    response_model=ScreeningAnswer,
    responses={
        **describe_problems(401, 403, 409, 413, 422, 429, 500, 503, 504),
        200: {"content": {"application/json": {"example": EXAMPLE_ANSWER}}},
    },
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
        answer = await screen_once(body, anonymized_id, caller, services.screening)
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
    """Screen up to 1,000 individuals; each item has its own result or problem."""
    answer = await screen_batch(body.items, principal, read_request_id(request), services.screening)
    return Response(answer.model_dump_json(), media_type="application/json")


def describe_answer(answer: ScreeningAnswer) -> dict[str, Any]:
    """Return what the request's log line holds of its answer: no score beside a pseudonym."""
    return {
        "needs_review": answer.needs_review,
        "release": answer.release.version if answer.release else None,
    }
