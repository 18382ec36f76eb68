"""The one place where errors become answers: RFC 9457 problems."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field, ValidationError
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException

from serving import audit
from serving.errors import (
    DatabaseUnavailableError,
    ProblemError,
    RefusedError,
    UnauthenticatedError,
)
from serving.http.guidance import choose_guidance

log = structlog.get_logger("serving.problems")

MEDIA_TYPE = "application/problem+json"

#: What any route behind a token may answer with besides its answer.
GUARDED = (401, 403, 422, 429, 500, 503, 504)

#: Names of fields that may be repeated to the caller, in snake_case or camelCase; anything else
#: might be a person's value, also one in base64.
_FIELD_NAME = re.compile(r"(?=.{1,64}$)_?[a-z]+[0-9]*(?:[A-Z][a-z]+|_[a-z0-9]+)*")


#: Where people look at pages: problems are pages too.
PAGES = "/console"
#: Paths of screenings, whose callers are left without an answer by a problem.
SCREENINGS = ("/screen", f"{PAGES}/screen", "/cds-services/", "/fhir/QuestionnaireResponse")


class FieldProblem(BaseModel):
    field: str
    message: str


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str | None = None
    errors: list[FieldProblem] | None = None
    crisis_guidance: str | None = Field(
        default=None, description="What to do when a screening could not be answered."
    )


RenderProblem = Callable[[Request, Problem, Mapping[str, str]], Response]


class InvalidRequestError(ProblemError):
    status = 422
    kind = "invalid-request"
    title = "Invalid request"

    def __init__(self, errors: list[FieldProblem]) -> None:
        super().__init__("see `errors` for each field")
        self.errors = errors


def describe_problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI entries of the problems a route answers with."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    meanings = {
        401: "No valid token.",
        403: "The role, or the individual's consent, does not allow it; audited.",
        404: "There is no such record.",
        409: "Conflict: another user claimed or changed the record first.",
        412: "Data that the service needs were not sent; `detail` names them.",
        413: "The body is too large.",
        422: "The request is not usable; `errors` names each field.",
        429: "Too many requests of this caller; `Retry-After` gives the wait in seconds.",
        500: "Nothing was recorded.",
        503: "The database or the release is unavailable, or the service is overloaded; "
        "nothing was recorded.",
        504: "Timed out; `detail` states whether anything may have been recorded.",
    }
    # `model` registers the schema; `content` gives the media type that is really sent.
    return {
        status: {"description": meanings[status], "model": Problem, "content": content}
        for status in statuses
    }


def install_problem_handlers(app: FastAPI, renderers: Mapping[str, RenderProblem]) -> None:
    """Answer every error as a problem in JSON, or as the renderer of its path's prefix does."""
    app.state.problem_renderers = renderers
    app.add_exception_handler(RefusedError, answer_refusal)
    app.add_exception_handler(UnauthenticatedError, answer_unauthenticated)
    app.add_exception_handler(ProblemError, answer_problem)
    app.add_exception_handler(RequestValidationError, answer_invalid_request)
    app.add_exception_handler(HTTPException, answer_http_error)
    for unreachable in (OperationalError, InterfaceError, PoolTimeoutError):
        app.add_exception_handler(unreachable, answer_database_unavailable)


def answer_problem(request: Request, error: Exception) -> Response:
    problem = error if isinstance(error, ProblemError) else ProblemError("an error on our side")
    return make_response(request, problem)


def answer_refusal(request: Request, error: Exception) -> Response:
    """Audit a refusal, then answer it; one that cannot be audited is answered as an outage."""
    assert isinstance(error, RefusedError)
    try:
        engine = request.app.state.services.engine
        audit.record_refusal(engine, error, read_request_id(request))
    except SQLAlchemyError as failure:
        log.error("refusal not audited", cause=type(failure).__name__)
        return make_response(request, DatabaseUnavailableError("the refusal could not be audited"))
    log.info("refused", reason=error.kind)
    return make_response(request, error)


def answer_unauthenticated(request: Request, error: Exception) -> Response:
    """Audit a caller without a valid token, within the worker's budget, then answer.

    Unlike a refusal it is answered as it is when the database is away: nothing was disclosed.
    """
    assert isinstance(error, UnauthenticatedError)
    services = request.app.state.services
    suppressed = services.accountability.unauthenticated.take()
    if suppressed is not None:
        route = getattr(request.scope.get("route"), "path", "unmatched")
        try:
            request_id = read_request_id(request)
            action = f"{request.method} {route}"
            audit.record_unauthenticated(services.engine, action, request_id, suppressed)
        except SQLAlchemyError as failure:
            log.error("caller without a token not audited", cause=type(failure).__name__)
    return make_response(request, error)


def answer_database_unavailable(request: Request, error: Exception) -> Response:
    log.error("database unavailable", cause=type(error).__name__)
    return make_response(request, DatabaseUnavailableError("nothing was recorded; try again"))


def answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    problem = ProblemError(str(error.detail))
    problem.status, problem.kind, problem.title = error.status_code, "http", "Not answered"
    return make_response(request, problem, headers=error.headers or {})


def answer_invalid_request(request: Request, error: Exception) -> Response:
    """Name each field that is wrong; never repeat what was sent."""
    assert isinstance(error, RequestValidationError)
    return make_response(request, InvalidRequestError(list_field_problems(error.errors())))


def list_field_problems(errors: Iterable[Mapping[str, Any]]) -> list[FieldProblem]:
    """Return what pydantic found, by field; `loc` begins with the place, as in FastAPI's."""
    return [
        FieldProblem(
            field=name_field(detail["loc"]), message=detail["msg"].removeprefix("Value error, ")
        )
        for detail in errors
    ]


def list_validation_problems(error: ValidationError, place: str) -> list[FieldProblem]:
    """Return what is wrong with a body validated outside of FastAPI; no value is repeated."""
    details = error.errors(include_input=False, include_url=False)
    return list_field_problems(detail | {"loc": (place, *detail["loc"])} for detail in details)


def make_response(
    request: Request, error: ProblemError, headers: Mapping[str, str] | None = None
) -> Response:
    guidance = error.shows_guidance or needs_guidance(request, error.status)
    text = choose_guidance(request.app.state.services.settings) if guidance else None
    problem = describe_problem(error, read_request_id(request), text)
    sent = {**error.headers, **(headers or {})}
    render = find_renderer(request)
    if render is not None:
        return render(request, problem, sent)
    return JSONResponse(
        problem.model_dump(exclude_none=True),
        status_code=error.status,
        headers=sent,
        media_type=MEDIA_TYPE,
    )


def describe_problem(error: ProblemError, request_id: str | None, guidance: str | None) -> Problem:
    return Problem(
        type=f"urn:mhras:problem:{error.kind}",
        title=error.title,
        status=error.status,
        detail=error.detail,
        request_id=request_id,
        errors=error.errors if isinstance(error, InvalidRequestError) else None,
        crisis_guidance=guidance,
    )


def needs_guidance(request: Request, status: int) -> bool:
    """Return True if a screening is left without an answer, whosever fault it is."""
    return request.url.path.startswith(SCREENINGS) and leaves_unanswered(status)


def find_renderer(request: Request) -> RenderProblem | None:
    path, renderers = request.url.path, request.app.state.problem_renderers
    matching: list[RenderProblem] = [
        render
        for prefix, render in renderers.items()
        if path == prefix or path.startswith(f"{prefix}/")
    ]
    return matching[0] if matching else None


def leaves_unanswered(status: int) -> bool:
    return status in (403, 409, 422, 429) or status >= 500


def read_request_id(request: Request) -> str | None:
    return getattr(request.state, "request_id", None)


def name_field(location: Sequence[str | int]) -> str:
    """Return `survey_data.phq9[3]` for ("body", "survey_data", "phq9", 3)."""
    named = ""
    for part in location[1:]:
        if isinstance(part, int):
            named += f"[{part}]"
        else:
            named += f".{part if _FIELD_NAME.fullmatch(part) else '(unnamed)'}"
    return named.lstrip(".") or str(location[0])
