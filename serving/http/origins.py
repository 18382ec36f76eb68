"""Which pages of other origins may call: those of registered EHR clients, CDS services only."""

from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send


class CrossOrigin:
    """Answers preflights and names allowed origins below `prefix`; elsewhere it does nothing."""

    def __init__(self, app: ASGIApp, prefix: str, origins: Sequence[str]) -> None:
        self._app, self._prefix = app, prefix
        self._shared = CORSMiddleware(
            app,
            allow_origins=list(origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_shared = scope["type"] == "http" and scope["path"].startswith(self._prefix)
        await (self._shared if is_shared else self._app)(scope, receive, send)
