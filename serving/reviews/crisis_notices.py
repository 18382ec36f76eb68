"""Notices of crises to the institution's webhook: at least once, retried, with no answer or name.

A trigger writes each notice beside its review item, in one transaction. Here they are sent:
review id, level and due time, nothing else. A notice whose item was decided meanwhile is
dropped. Decision: infra/adr/0062-crisis-notices-by-an-outbox.md.
"""

import threading
from datetime import UTC, datetime, timedelta

import httpx
import structlog
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from monitoring.logging import describe_error
from monitoring.metrics import CRISIS_NOTICES
from serving.database.review_terms import ReviewStatus
from serving.database.sessions import open_session
from serving.database.tables import CrisisNotice, ReviewItem

log = structlog.get_logger("serving.notices")

WAITING, SENT, DROPPED = "waiting", "sent", "dropped"

#: Seconds between two looks into the outbox, and a webhook's time to answer.
POLL_SECONDS = 2.0
PATIENCE_SECONDS = 3.0
#: The first repetition comes after this; each next one waits twice as long, up to the longest.
FIRST_WAIT = timedelta(seconds=5)
LONGEST_WAIT = timedelta(minutes=5)
#: More are not counted.
MOST_ATTEMPTS = 1_000_000


def send_next(engine: Engine, client: httpx.Client, url: str) -> bool:
    """Send the notice that is due first; return whether there was one.

    Its row is locked while it is sent, so two workers do not send the same at once; a worker
    that dies after sending leaves it waiting, and it is sent again.
    """
    with open_session(engine) as session:
        notice = _take_due(session)
        if notice is None:
            return False
        if _is_decided(session, notice):
            _settle(notice, DROPPED)
        elif _post(client, url, notice):
            _settle(notice, SENT)
        else:
            _put_off(notice)
        return True


def count_waiting_notices(session: Session) -> int:
    statement = select(func.count()).where(CrisisNotice.state == WAITING)
    return session.scalar(statement) or 0


def describe_notice(notice: CrisisNotice) -> dict[str, str]:
    """Return what is sent; `text` is the same three facts for chat systems."""
    review_id, due_at = str(notice.review_id), notice.due_at.astimezone(UTC).isoformat()
    text = f"A crisis waits for review: {review_id}, level {notice.level}, due {due_at}"
    return {"text": text, "review_id": review_id, "level": notice.level, "due_at": due_at}


def find_wait(attempts: int) -> timedelta:
    """Return how long to wait after so many failed attempts."""
    doubled: timedelta = FIRST_WAIT * 2 ** max(0, min(attempts - 1, 10))
    return min(doubled, LONGEST_WAIT)


def _take_due(session: Session) -> CrisisNotice | None:
    statement = (
        select(CrisisNotice)
        .where(CrisisNotice.state == WAITING, CrisisNotice.next_attempt_at <= datetime.now(UTC))
        .order_by(CrisisNotice.next_attempt_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    return session.scalars(statement).first()


def _is_decided(session: Session, notice: CrisisNotice) -> bool:
    statement = select(ReviewItem.status).where(ReviewItem.id == notice.review_id)
    return session.scalar(statement) == ReviewStatus.DECIDED


def _post(client: httpx.Client, url: str, notice: CrisisNotice) -> bool:
    try:
        response = client.post(url, json=describe_notice(notice))
    except httpx.HTTPError as error:
        # Not the error's text: it holds the address, which is a secret.
        log.error("crisis notice not sent", cause=type(error).__name__)
        return False
    if not response.is_success:
        log.error("crisis notice not sent", status=response.status_code)
    return response.is_success


def _settle(notice: CrisisNotice, state: str) -> None:
    notice.state, notice.settled_at = state, datetime.now(UTC)
    notice.attempts = min(notice.attempts + (state == SENT), MOST_ATTEMPTS)
    CRISIS_NOTICES.labels(state).inc()


def _put_off(notice: CrisisNotice) -> None:
    # Not beyond what the column holds: the notice would fail here and hold up all others.
    notice.attempts = min(notice.attempts + 1, MOST_ATTEMPTS)
    notice.next_attempt_at = datetime.now(UTC) + find_wait(notice.attempts)
    CRISIS_NOTICES.labels("failed").inc()


class NoticeSender:
    """Sends what waits in the outbox from its own thread; without an address it sends nothing."""

    def __init__(self, engine: Engine, url: str | None) -> None:
        self._engine, self._url = engine, url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notice-sender", daemon=True)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs, or has no reason to."""
        return self._url is None or self._thread.is_alive()

    def start(self) -> None:
        if self._url is not None:
            self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        with httpx.Client(timeout=PATIENCE_SECONDS) as client:
            while not self._stop.wait(POLL_SECONDS):
                self._send_all(client)

    def _send_all(self, client: httpx.Client) -> None:
        assert self._url is not None
        try:
            while not self._stop.is_set() and send_next(self._engine, client, self._url):
                pass
        # The thread must outlive an outage of the database; notices wait meanwhile.
        except Exception as error:
            log.error("outbox of crisis notices not read", error=describe_error(error))
