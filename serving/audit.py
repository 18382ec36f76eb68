"""The audit trail: who did what to whose data, with what result.

What succeeds is recorded in the transaction of what it records; a refusal, whose own
transaction is rolled back, in one of its own.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine

from serving.answers import ScreeningAnswer
from serving.database.sessions import open_session
from serving.database.tables import AuditRow
from serving.errors import Principal, RefusedError

SCREENING_REQUEST = "screening_request"
GENERATE_RISK_SCORE = "generate_risk_score"
ACCESS_REFUSED = "access_refused"


def describe_screening(
    principal: Principal,
    answer: ScreeningAnswer,
    data_types: Iterable[str],
    request_id: str | None,
) -> dict[str, Any]:
    """Return the columns of an answered screening's row, written with the prediction."""
    return {
        "created_at": datetime.now(UTC),
        "event_type": SCREENING_REQUEST,
        "user_id": principal.user_id,
        "user_role": principal.role,
        "anonymized_id": answer.anonymized_id,
        "data_types": sorted(data_types),
        "action": GENERATE_RISK_SCORE,
        "result": "success",
        "request_id": request_id,
        "details": {
            "prediction_id": answer.prediction_id,
            "risk_score": answer.risk_score,
            "release_version": answer.release.version if answer.release else None,
        },
    }


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
