"""The audit trail: who did what to whose data, with what result.

What succeeds is recorded in the transaction of what it records; a refusal, whose own
transaction is rolled back, in one of its own.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from serving.database.sessions import open_session
from serving.database.tables import AuditRow
from serving.errors import Principal, RefusedError

SCREENING_REQUEST = "screening_request"
GENERATE_RISK_SCORE = "generate_risk_score"
ACCESS_REFUSED = "access_refused"


def record_screening(
    session: Session,
    principal: Principal,
    anonymized_id: str,
    data_types: Iterable[str],
    request_id: str | None,
    details: Mapping[str, Any],
) -> None:
    """Add the row of an answered screening to the caller's transaction."""
    session.add(
        AuditRow(
            created_at=datetime.now(UTC),
            event_type=SCREENING_REQUEST,
            user_id=principal.user_id,
            user_role=principal.role.value,
            anonymized_id=anonymized_id,
            data_types=sorted(data_types),
            action=GENERATE_RISK_SCORE,
            result="success",
            request_id=request_id,
            details=dict(details),
        )
    )


def record_refusal(engine: Engine, refusal: RefusedError, request_id: str | None) -> None:
    """Write the row of a refusal and commit it."""
    row = AuditRow(
        created_at=datetime.now(UTC),
        event_type=ACCESS_REFUSED,
        user_id=refusal.principal.user_id,
        user_role=refusal.principal.role.value,
        anonymized_id=refusal.anonymized_id,
        data_types=[],
        action=refusal.action,
        result="failure",
        request_id=request_id,
        details={"reason": refusal.kind},
    )
    with open_session(engine) as session:
        session.add(row)
