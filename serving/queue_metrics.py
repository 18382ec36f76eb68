"""Gauges that only the database knows: review queue, consents about to expire, newest drift.

Read at scrape, at most every few seconds, so that all workers show the same and none adds up
with another.
"""

import threading
import time
from itertools import product

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from monitoring.metrics import (
    CALIBRATION_RATIO,
    CONSENTS_EXPIRING,
    CRISES_UNCLAIMED_OVERDUE,
    CRISIS_NOTICES_WAITING,
    DRIFT_ALARMS,
    DRIFT_SCORE,
    OUTCOME_AUROC,
    REVIEW_QUEUE_OVERDUE,
    REVIEW_QUEUE_SIZE,
)
from serving.consent.changes import count_expiring
from serving.database.sessions import open_session
from serving.database.tables import DriftReport
from serving.predictions.drift_records import SCREENINGS, list_latest
from serving.reviews.crisis_notices import count_waiting_notices
from serving.reviews.queue import OPEN, PRIORITIES, QueueCount, count_crises_left, count_open

log = structlog.get_logger("serving.metrics")

#: /metrics is public: its callers must not be able to keep the database busy.
REFRESH_SECONDS = 5
UNKNOWN = float("nan")


class QueueMetrics:
    """Refreshes the gauges of one worker."""

    def __init__(self, engine: Engine, watches_drift: bool = True) -> None:
        self._engine = engine
        self._watches_drift = watches_drift
        self._lock = threading.Lock()
        self._refreshed_at = float("-inf")

    def refresh(self) -> None:
        """Bring the gauges up to date; without a database they say they know nothing."""
        with self._lock:
            if time.monotonic() - self._refreshed_at < REFRESH_SECONDS:
                return
            try:
                with open_session(self._engine) as session:
                    counts, expiring = count_open(session), float(count_expiring(session))
                    crises, notices = count_crises_left(session), count_waiting_notices(session)
                    reports = list_latest(session) if self._watches_drift else []
            except SQLAlchemyError as error:
                log.warning("queue not counted", cause=type(error).__name__)
                show_unknown()
            else:
                show_queue(counts)
                CONSENTS_EXPIRING.set(expiring)
                CRISES_UNCLAIMED_OVERDUE.set(crises)
                CRISIS_NOTICES_WAITING.set(notices)
                show_drift(reports)
            self._refreshed_at = time.monotonic()


def show_drift(reports: list[DriftReport]) -> None:
    """Show the newest report of each dataset, and the outcomes of the newest of all."""
    for report in reports:
        DRIFT_SCORE.labels(report.dataset).set(report.drift_score)
        DRIFT_ALARMS.labels(report.dataset).set(len(report.alarms))
    for newest in reports[:1]:
        for gauge, name in ((OUTCOME_AUROC, "auroc"), (CALIBRATION_RATIO, "ratio")):
            gauge.labels(SCREENINGS).set(newest.outcomes.get(name, UNKNOWN))


def show_queue(counts: list[QueueCount]) -> None:
    """Set every gauge, those of empty corners of the queue to 0."""
    sizes = {(count.priority, count.status): count.items for count in counts}
    for priority, status in product(PRIORITIES, OPEN):
        REVIEW_QUEUE_SIZE.labels(priority, status).set(sizes.get((priority, status), 0))
    for priority in PRIORITIES:
        late = sum(count.overdue for count in counts if count.priority == priority)
        REVIEW_QUEUE_OVERDUE.labels(priority).set(late)


def show_unknown() -> None:
    for priority, status in product(PRIORITIES, OPEN):
        REVIEW_QUEUE_SIZE.labels(priority, status).set(UNKNOWN)
    for priority in PRIORITIES:
        REVIEW_QUEUE_OVERDUE.labels(priority).set(UNKNOWN)
    for gauge in (CONSENTS_EXPIRING, CRISES_UNCLAIMED_OVERDUE, CRISIS_NOTICES_WAITING):
        gauge.set(UNKNOWN)
