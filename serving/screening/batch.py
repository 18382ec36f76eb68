"""Many screenings in one request: each stands for itself, as if it had come alone."""

import asyncio
import time
from collections.abc import Sequence

import structlog
from pydantic import BaseModel, Field, JsonValue, ValidationError

from serving import audit
from serving.database.threads import run_apart
from serving.errors import (
    DatabaseUnavailableError,
    DeadlineExceededError,
    Principal,
    ProblemError,
    RefusedError,
)
from serving.http.individual import resolve_individual
from serving.http.problems import (
    InvalidRequestError,
    Problem,
    describe_problem,
    leaves_unanswered,
    list_validation_problems,
)
from serving.http.strict_json import StrictBody
from serving.screening.answers import ScreeningAnswer
from serving.screening.dependencies import ScreeningDependencies
from serving.screening.recorder import OUTAGES
from serving.screening.records import Caller
from serving.screening.requests import EXAMPLE, ScreeningRequest
from serving.screening.screen import find_deadline, screen

log = structlog.get_logger("serving.screening")

MAX_ITEMS = 1000
#: Items of all batches of a worker under way at once: enough to share commits, few enough to
#: leave single requests room.
BATCH_ITEMS_UNDER_WAY = 16

NOTHING_RECORDED = DatabaseUnavailableError("nothing was recorded; try again")


class BatchRequest(StrictBody):
    items: list[JsonValue] = Field(
        min_length=1,
        max_length=MAX_ITEMS,
        description="Each as the body of POST /screen; each has its own result.",
        examples=[[EXAMPLE]],
    )


class BatchResult(BaseModel):
    position: int = Field(description="Of the item in the request, from 0.")
    answer: ScreeningAnswer | None = None
    problem: Problem | None = None


class BatchAnswer(BaseModel):
    answered: int
    failed: int
    results: list[BatchResult]


async def screen_batch(
    items: Sequence[JsonValue],
    principal: Principal,
    request_id: str | None,
    dependencies: ScreeningDependencies,
) -> BatchAnswer:
    """Screen every item; one that cannot be answered carries its reason and stops no other.

    An item whose turn comes too late for this request is not begun, and its result states that.
    """
    settings = dependencies.settings
    begin_by = time.monotonic() + settings.request_timeout - settings.screening_timeout

    async def screen_in_turn(position: int, item: JsonValue) -> BatchResult:
        async with dependencies.batch_room:
            if time.monotonic() > begin_by:
                unbegun = describe_unbegun(request_id, dependencies.thresholds.guidance)
                return BatchResult(position=position, problem=unbegun)
            return await screen_item(position, item, principal, request_id, dependencies)

    results = await asyncio.gather(*(screen_in_turn(n, item) for n, item in enumerate(items)))
    failed = sum(result.problem is not None for result in results)
    return BatchAnswer(answered=len(results) - failed, failed=failed, results=list(results))


def describe_unbegun(request_id: str | None, guidance: str) -> Problem:
    error = DeadlineExceededError(
        "the batch ran out of time before this item, which is not recorded; send the item again"
    )
    return describe_problem(error, request_id, guidance)


async def screen_item(
    position: int,
    item: JsonValue,
    principal: Principal,
    request_id: str | None,
    dependencies: ScreeningDependencies,
) -> BatchResult:
    caller = Caller(principal, request_id, find_deadline(dependencies.settings))
    try:
        request = read_item(item)
        anonymized_id = resolve_individual(request, dependencies.settings)
        answer = await screen(request, anonymized_id, caller, dependencies)
    except (ProblemError, *OUTAGES) as error:
        problem = await explain_failure(error, request_id, dependencies)
        return BatchResult(position=position, problem=problem)
    return BatchResult(position=position, answer=answer)


def read_item(item: JsonValue) -> ScreeningRequest:
    """Return the item as a request; raises InvalidRequestError naming each field."""
    try:
        return ScreeningRequest.model_validate(item)
    except ValidationError as error:
        raise InvalidRequestError(list_validation_problems(error, "item")) from None


async def explain_failure(
    error: Exception, request_id: str | None, dependencies: ScreeningDependencies
) -> Problem:
    """Return why an item has no answer; a refusal is audited first."""
    problem = error if isinstance(error, ProblemError) else NOTHING_RECORDED
    if isinstance(error, RefusedError):
        try:
            await run_apart(audit.record_refusal, dependencies.engine, error, request_id)
        except OUTAGES as failure:
            log.error("refusal not audited", cause=type(failure).__name__)
            problem = NOTHING_RECORDED
    guidance = dependencies.thresholds.guidance if leaves_unanswered(problem.status) else None
    return describe_problem(problem, request_id, guidance)
