"""Around every request: its id, its metrics, its log line, and the net under all errors."""

import re
import time
import uuid
from collections.abc import MutableMapping
from typing import Any

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monitoring.logging import describe_error
from monitoring.metrics import HTTP_REQUEST_DURATION, HTTP_REQUESTS
from serving.errors import ProblemError
from serving.problems import answer_problem

log = structlog.get_logger("serving.requests")

REQUEST_ID_HEADER = "X-Request-ID"
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

#: Answers hold health data: no cache may keep them, no browser may guess their type.
ANSWER_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class RequestContext:
    """Plain ASGI middleware: Starlette's own base class would run routes in another task."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        request.state.request_id = choose_request_id(request.headers.get(REQUEST_ID_HEADER))
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
            await send(message)

        try:
            await self._app(request.scope, receive, send_with_headers)
        except Exception as error:
            log.error("request failed", error=describe_error(error))
            if "status" in sent:
                raise
            response = answer_problem(request, ProblemError("an error on our side; it is logged"))
            await response(request.scope, receive, send_with_headers)
        finally:
            report(request, sent.get("status", 500), time.perf_counter() - started)


def report(request: Request, status: int, seconds: float) -> None:
    """Count and log a request by its route, never by its path, which may hold a pseudonym."""
    endpoint = name_endpoint(request.scope)
    HTTP_REQUESTS.labels(endpoint, request.method, str(status)).inc()
    HTTP_REQUEST_DURATION.labels(endpoint, request.method).observe(seconds)
    known = {"anonymized_id": getattr(request.state, "anonymized_id", None)}
    log.info(
        "request answered",
        endpoint=endpoint,
        method=request.method,
        status=status,
        response_time=round(seconds, 4),
        **{name: value for name, value in known.items() if value},
    )


def name_endpoint(scope: MutableMapping[str, Any]) -> str:
    return getattr(scope.get("route"), "path", "unmatched")


def choose_request_id(given: str | None) -> str:
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return f"req_{uuid.uuid4().hex}"
