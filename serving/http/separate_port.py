"""Metrics on a port of their own, which no way in leads to and no other path is served on."""

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.errors import NotFoundError
from serving.http.problems import answer_problem

METRICS_PATH = "/metrics"


class MetricsApart:
    """Serves METRICS_PATH on `port` alone, and nothing else there; others answer 404."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app = app
        self._port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._belongs(scope):
            refusal = NotFoundError("this port does not serve this path")
            await answer_problem(Request(scope), refusal)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _belongs(self, scope: Scope) -> bool:
        is_metrics = scope["path"].rstrip("/") == METRICS_PATH
        return is_metrics == (scope["server"][1] == self._port)
