"""Around every request: its id, its metrics, its log line, and the net under all errors."""

import asyncio
import re
import time
import uuid
from collections.abc import MutableMapping
from typing import Any

import structlog
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feature_repo.postgres_deadlines import REQUEST_DEADLINE
from monitoring.logging import describe_error
from monitoring.metrics import HTTP_REQUEST_DURATION, HTTP_REQUESTS, get_series
from serving.audit.trail import CALLER_NETWORK
from serving.errors import DeadlineExceededError, ProblemError
from serving.http.problems import answer_problem

log = structlog.get_logger("serving.requests")

REQUEST_ID_HEADER = "X-Request-ID"
#: A UUID, with or without a short prefix: a free text would put names into log and audit trail.
_REQUEST_ID = re.compile(r"(?:[a-z]{1,8}_)?[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.I)

#: Answers hold health data: no cache may keep them, no browser may guess their type, frame
#: them, or run anything that came with them.
ANSWER_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
}
ANSWER_POLICY = "default-src 'none'; base-uri 'none'; frame-ancestors 'none'"
#: What a route may set otherwise. A page may load what its own policy names; answers are no
#: pages, and load nothing.
USUAL_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": ANSWER_POLICY,
}
#: Swagger UI styles its own elements.
DOCUMENTATION_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)

#: Requests that are one screening: their time is SCREENING_TIMEOUT, from their arrival.
_SCREENING = re.compile(r"/screen|/console/screen|/cds-services/[^/]+|/fhir/QuestionnaireResponse")
#: A screening explains its own time-out; the net below it is as much later.
NET_SECONDS = 0.2

#: 1,000 screenings take a quarter of it.
MAX_BODY_BYTES = 1024 * 1024


class RequestContext:
    """Plain ASGI middleware: Starlette's own base class would run routes in another task."""

    def __init__(self, app: ASGIApp, timeout_seconds: float, screening_seconds: float) -> None:
        self._app = app
        self._timeout_seconds = timeout_seconds
        self._screening_seconds = screening_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        request.state.request_id = choose_request_id(request.headers.get(REQUEST_ID_HEADER))
        CALLER_NETWORK.set(request.client.host if request.client else None)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request.state.request_id)
        await self._answer(request, receive, send)

    async def _answer(self, request: Request, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        sent: dict[str, int] = {}

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent["status"] = message["status"]
                headers = MutableHeaders(scope=message)
                headers.update({**ANSWER_HEADERS, REQUEST_ID_HEADER: request.state.request_id})
                for name, value in USUAL_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            async with asyncio.timeout(self._begin_time(request)) as deadline:
                request.state.timeout = deadline
                send_in_time = release_deadline(deadline, send_with_headers)
                await self._app(request.scope, limit_body(request, receive), send_in_time)
        except Exception as error:
            if "status" in sent:
                raise
            response = answer_problem(request, explain_failure(error))
            await response(request.scope, receive, send_with_headers)
        finally:
            report(request, sent.get("status", 500), time.perf_counter() - started)

    def _begin_time(self, request: Request) -> float:
        """Return the seconds a request has; those of a screening hold for the database too."""
        if request.method != "POST" or not _SCREENING.fullmatch(request.url.path):
            return self._timeout_seconds
        REQUEST_DEADLINE.set(time.monotonic() + self._screening_seconds)
        return self._screening_seconds + NET_SECONDS


def extend_deadline(request: Request, seconds: float) -> None:
    """Give a request `seconds` from now; for what is rare and takes longer than any other."""
    deadline: asyncio.Timeout = request.state.timeout
    deadline.reschedule(asyncio.get_running_loop().time() + seconds)


def release_deadline(deadline: asyncio.Timeout, send: Send) -> Send:
    """Return a `send` that lifts the deadline with the first byte: an export takes its time."""

    async def send_and_release(message: Message) -> None:
        if message["type"] == "http.response.start":
            deadline.reschedule(None)
        await send(message)

    return send_and_release


def explain_failure(error: Exception) -> ProblemError:
    """Return what is answered of what nothing else caught."""
    if isinstance(error, TimeoutError):
        log.error("request timed out")
        return DeadlineExceededError("the request took too long")
    log.error("request failed", error=describe_error(error))
    return ProblemError("an error on our side; it is logged")


def limit_body(request: Request, receive: Receive) -> Receive:
    """Return a `receive` that refuses a body above MAX_BODY_BYTES, announced or not."""
    announced = request.headers.get("Content-Length", "0")
    received = 0

    async def receive_within_limit() -> Message:
        nonlocal received
        if announced.isdigit() and int(announced) > MAX_BODY_BYTES:
            raise make_body_error()
        message = await receive()
        received += len(message.get("body", b""))
        if received > MAX_BODY_BYTES:
            raise make_body_error()
        return message

    return receive_within_limit


def make_body_error() -> HTTPException:
    # Starlette's own kind: FastAPI turns any other error of reading a body into a 400.
    return HTTPException(413, f"a body may hold {MAX_BODY_BYTES} bytes")


def report(request: Request, status: int, seconds: float) -> None:
    """Count and log a request by its route, never by its path, which may hold a pseudonym."""
    endpoint = name_endpoint(request.scope)
    get_series(HTTP_REQUESTS, endpoint, request.method, str(status)).inc()
    get_series(HTTP_REQUEST_DURATION, endpoint, request.method).observe(seconds)
    log.info(
        getattr(request.state, "log_message", "request answered"),
        endpoint=endpoint,
        method=request.method,
        status=status,
        response_time=round(seconds, 4),
        **getattr(request.state, "log_fields", {}),
    )


def name_endpoint(scope: MutableMapping[str, Any]) -> str:
    return getattr(scope.get("route"), "path", "unmatched")


def choose_request_id(given: str | None) -> str:
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return f"req_{uuid.uuid4().hex}"
