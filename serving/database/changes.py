"""Notifies a worker of what other processes changed: consents and revocations of tokens.

PostgreSQL notifies on commit, so a withdrawal reaches a cache within milliseconds. Because a
broken connection is silent, what was cached counts only while the listener's lease is fresh: a
round trip on the listening connection renews it, and without one it ends within a second.
Decision: infra/adr/0010-caches-live-on-a-lease.md.
"""

import select
import threading
import time
from collections.abc import Callable
from typing import Any

import structlog
from sqlalchemy import URL, NullPool, create_engine, text

from feature_repo.postgres_deadlines import bind_limit
from feature_repo.postgres_sessions import begin_sessions_with
from serving.database.clock import DatabaseClock

log = structlog.get_logger("serving.changes")

CHANNEL = "mhras_changes"

#: Between two round trips, and how long one vouches for the caches; together below 1 s.
HEARTBEAT_SECONDS = 0.25
LEASE_SECONDS = 0.7
#: A notice to ourselves must arrive within this, or the connection cannot listen (a pooler).
SELF_TEST_SECONDS = 5
RECONNECT_SECONDS = 0.5
#: Without an answer for so long the connection is given up, and another one opened.
SILENCE_SECONDS = 5
STOP_SECONDS = 3

Receive = Callable[[str], None]


class ChangeListener:
    """Listens from its own thread and hands every notice to `receivers`.

    After each (re)connection they get `RESET`: what they hold may have missed a notice.
    """

    RESET = "reset"

    def __init__(self, url: URL) -> None:
        # Not from the pool: the connection is kept, and ends with the thread.
        engine = create_engine(
            url,
            poolclass=NullPool,
            hide_parameters=True,
            isolation_level="AUTOCOMMIT",
            connect_args={
                "connect_timeout": 2,
                # A peer that vanished is given up, so that listening begins again.
                "tcp_user_timeout": 5_000,
                "keepalives_idle": 5,
                "connection_factory": bind_limit(SILENCE_SECONDS),
            },
        )
        self._engine = begin_sessions_with(engine, {"statement_timeout": 1000})
        self._receivers: list[Receive] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="change-listener", daemon=True)
        self._fresh_until = 0.0
        self.clock = DatabaseClock()

    @property
    def is_fresh(self) -> bool:
        """Whether nothing committed more than a second ago can be unknown here."""
        return time.monotonic() < self._fresh_until

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def subscribe(self, receive: Receive) -> None:
        self._receivers.append(receive)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End listening; a thread that waits for a silent peer ends with the process."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)
        self._engine.dispose()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._listen()
            # Also psycopg2's own errors, which `poll` raises past SQLAlchemy: without this thread
            # no later withdrawal would reach the caches.
            except Exception as error:
                log.warning("not listening for changes", cause=type(error).__name__)
            self._fresh_until = 0.0
            self._stop.wait(RECONNECT_SECONDS)

    def _listen(self) -> None:
        with self._engine.connect() as connection:
            raw: Any = connection.connection.driver_connection
            connection.execute(text(f"LISTEN {CHANNEL}"))
            self._prove_hearing(connection, raw)
            self._tell(self.RESET)
            while not self._stop.is_set():
                asked_at = time.monotonic()
                self.clock.measure(connection)
                self._drain(raw)
                self._fresh_until = asked_at + LEASE_SECONDS
                select.select([raw], [], [], HEARTBEAT_SECONDS)

    def _prove_hearing(self, connection: Any, raw: Any) -> None:
        """Raise ListenerDeafError unless a notice to ourselves comes back."""
        word = f"hello:{id(self)}"
        deadline = time.monotonic() + SELF_TEST_SECONDS
        statement = text("SELECT pg_notify(:channel, :word)")
        connection.execute(statement, {"channel": CHANNEL, "word": word})
        while time.monotonic() < deadline:
            raw.poll()
            if any(notice.payload == word for notice in raw.notifies):
                return
            select.select([raw], [], [], 0.1)
        raise ListenerDeafError

    def _drain(self, raw: Any) -> None:
        raw.poll()
        while raw.notifies:
            self._tell(raw.notifies.pop(0).payload)

    def _tell(self, notice: str) -> None:
        for receive in self._receivers:
            receive(notice)


class ListenerDeafError(Exception):
    """The connection does not deliver notices; a transaction pooler is in between."""
