"""Rows of the audit trail: who did what to whose data, with what result.

What succeeds is recorded in the transaction of what it records; a refusal, whose own
transaction is rolled back, in one of its own. Free text and values about a person never
enter a row: it outlives the person's erasure.
"""

import threading
import time
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from serving.database.sessions import open_session
from serving.database.tables import AuditRow
from serving.errors import Actor, RefusedError

#: Address of the client whose request is being answered; None outside of requests.
CALLER_NETWORK: ContextVar[str | None] = ContextVar("caller_network", default=None)

SCREENING_REQUEST = "screening_request"
GENERATE_RISK_SCORE = "generate_risk_score"
ACCESS_REFUSED = "access_refused"
UNAUTHENTICATED = "unauthenticated_request"
TOKENS_REVOKED = "tokens_revoked"
SIGN_IN = "sign_in"
SIGN_OUT = "sign_out"
#: A row that shows many individuals at once names them in details.individuals.
REVIEW_LIST = "review_list"
REVIEW_VIEW = "review_view"
REVIEW_CHANGE = "review_change"
CRISIS_OVERRIDE = "crisis_override"
CONSENT_VIEW = "consent_view"
CONSENT_CHANGE = "consent_change"
CONSENT_NOTICE = "consent_notice"
PREDICTION_VIEW = "prediction_view"
INDIVIDUAL_LOOKUP = "individual_lookup"
INDIVIDUAL_EXPORT = "individual_export"
INDIVIDUAL_ERASURE = "individual_erasure"
AUDIT_ACCESS = "audit_access"
COMPLIANCE_ACCESS = "compliance_access"
MODEL_VIEW = "model_view"
MODEL_CHANGE = "model_change"
CONFIGURATION_VIEW = "configuration_view"

#: User id of a caller without a valid token.
ANONYMOUS = "anonymous"

#: Rows of callers without a valid token, per worker: a flood of them must not fill the trail.
UNAUTHENTICATED_ROWS_PER_SECOND = 5


@dataclass(frozen=True)
class Event:
    """One event as the trail records it; `details` holds nothing personal."""

    event_type: str
    action: str
    anonymized_id: str | None = None
    data_types: Iterable[str] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


class EventTrail(Protocol):
    """The audit trail of one request: rows join its transaction, under its caller."""

    def record(self, event: Event) -> None: ...


def record(session: Session, principal: Actor, request_id: str | None, event: Event) -> None:
    """Add the row of something that is done to the transaction that does it."""
    session.add(make_row(principal.user_id, str(principal.role), "success", request_id, event))


def record_refusal(engine: Engine, refusal: RefusedError, request_id: str | None) -> None:
    """Write the row of a refusal and commit it."""
    details = {"reason": refusal.kind}
    event = Event(ACCESS_REFUSED, refusal.action, refusal.anonymized_id, details=details)
    caller = refusal.principal
    _write(engine, make_row(caller.user_id, str(caller.role), "failure", request_id, event))


def record_unauthenticated(
    engine: Engine, action: str, request_id: str | None, suppressed: int
) -> None:
    """Write the row of a caller without a valid token, and of how many had none before."""
    details = {"reason": "unauthenticated", "suppressed": suppressed}
    event = Event(UNAUTHENTICATED, action, details=details)
    _write(engine, make_row(ANONYMOUS, "none", "failure", request_id, event))


def make_row(
    user_id: str, user_role: str, result: str, request_id: str | None, event: Event
) -> AuditRow:
    return AuditRow(**make_columns(user_id, user_role, result, request_id, event))


def make_columns(
    user_id: str, user_role: str, result: str, request_id: str | None, event: Event
) -> dict[str, Any]:
    """Return a row's values by column name, without the columns the database fills."""
    return {
        "created_at": datetime.now(UTC),
        "event_type": event.event_type,
        "user_id": user_id,
        "user_role": user_role,
        "anonymized_id": event.anonymized_id,
        "data_types": sorted(event.data_types),
        "action": event.action,
        "result": result,
        "request_id": request_id,
        "network": CALLER_NETWORK.get(),
        "details": dict(event.details),
    }


def _write(engine: Engine, row: AuditRow) -> None:
    with open_session(engine) as session:
        session.add(row)


class UnauthenticatedBudget:
    """How many callers without a token may still be recorded this second; the rest are counted."""

    def __init__(self, rows_per_second: int = UNAUTHENTICATED_ROWS_PER_SECOND) -> None:
        self._limit = rows_per_second
        self._lock = threading.Lock()
        self._second, self._used, self._suppressed = 0, 0, 0

    def take(self) -> int | None:
        """Return how many were not recorded since the last row; None when none may be now."""
        second = int(time.monotonic())
        with self._lock:
            if second != self._second:
                self._second, self._used = second, 0
            if self._used >= self._limit:
                self._suppressed += 1
                return None
            self._used += 1
            suppressed, self._suppressed = self._suppressed, 0
            return suppressed
