"""Deadlines of PostgreSQL that hold in the client: a server that is frozen answers nothing.

A frozen server's kernel still acknowledges what it is sent, so neither keepalives nor
`tcp_user_timeout` end a wait, and `statement_timeout` is the frozen server's own. psycopg2 calls
`wait_in_time` wherever it waits; a connection whose time is up is closed.
Decision: infra/adr/0081-deadlines-of-the-database-hold-in-the-client.md.
"""

import select
import time
from collections.abc import Callable
from contextvars import ContextVar

import psycopg2
from psycopg2 import extensions

#: When the request in progress needs no answer of the database any more (monotonic seconds).
REQUEST_DEADLINE: ContextVar[float | None] = ContextVar("request_deadline", default=None)


class ServerSilentError(psycopg2.OperationalError):
    """The server sent nothing in time; what it was asked may yet be carried out."""


class BoundedConnection(extensions.connection):
    """A connection whose every wait ends after `limit_seconds`."""

    limit_seconds: float = float("inf")


def bind_limit(limit_seconds: float) -> Callable[..., extensions.connection]:
    """Return a `connection_factory` of psycopg2 whose connections wait no longer than that."""
    extensions.set_wait_callback(wait_in_time)
    return type("LimitedConnection", (BoundedConnection,), {"limit_seconds": limit_seconds})


def wait_in_time(connection: extensions.connection) -> None:
    """Wait until the server has answered; raises ServerSilentError when the time is up."""
    deadline = find_deadline(connection)
    state = connection.poll()
    while state != extensions.POLL_OK:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise ServerSilentError("the server sent no answer in time")
        # Not select(): it takes no descriptor above 1023, and a worker under load has such.
        readiness = select.poll()
        wanted = select.POLLIN if state == extensions.POLL_READ else select.POLLOUT
        readiness.register(connection.fileno(), wanted)
        readiness.poll(None if left is None else 1000 * left)
        state = connection.poll()


def find_deadline(connection: extensions.connection) -> float | None:
    """Return when a wait of this connection ends, in monotonic seconds; None for never."""
    if not isinstance(connection, BoundedConnection):
        return None
    limit = time.monotonic() + connection.limit_seconds
    requested = REQUEST_DEADLINE.get()
    return limit if requested is None else min(limit, requested)
