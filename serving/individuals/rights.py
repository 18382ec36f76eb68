"""What an individual may ask of us: what we predicted, all we hold, and who looked at it."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import or_, select, tuple_
from sqlalchemy.orm import Session

from serving.audit.trail import REVIEW_LIST
from serving.consent.changes import list_history
from serving.database.rows import describe_row
from serving.database.tables import (
    AuditRow,
    Base,
    Consent,
    ConsentNotice,
    ContactAttempt,
    CrisisOverride,
    Prediction,
    PredictionLabel,
    ReviewEvent,
    ReviewItem,
)

#: What this service does not hold and so cannot hand out.
ELSEWHERE = (
    "Questionnaires, wearable days and care events as they were delivered stay with the systems "
    "that delivered them; features computed from them are in each prediction's inputs."
)


def list_predictions(
    session: Session, anonymized_id: str, before: Sequence[Any] | None, limit: int
) -> Sequence[Prediction]:
    """Return up to `limit` predictions, latest first, before a position (created_at, id)."""
    statement = select(Prediction).where(Prediction.anonymized_id == anonymized_id)
    if before is not None:
        statement = statement.where(tuple_(Prediction.created_at, Prediction.id) < before)
    order = (Prediction.created_at.desc(), Prediction.id.desc())
    return session.scalars(statement.order_by(*order).limit(limit)).all()


def list_overridden(session: Session, predictions: Sequence[Prediction]) -> set[UUID]:
    """Return which of the predictions a clinician's override put into the top band."""
    wanted = [prediction.id for prediction in predictions]
    statement = select(CrisisOverride.prediction_id).where(CrisisOverride.prediction_id.in_(wanted))
    return set(session.scalars(statement))


def list_accesses(
    session: Session,
    anonymized_id: str,
    before: int | None,
    limit: int,
    span: tuple[datetime | None, datetime | None] = (None, None),
) -> Sequence[AuditRow]:
    """Return up to `limit` audit rows about an individual, latest first, before an id.

    `span`: from an instant on, and before another; None leaves an end open.
    """
    listed = AuditRow.details.contains({"individuals": [anonymized_id]})
    statement = select(AuditRow).where(
        or_(
            AuditRow.anonymized_id == anonymized_id,
            (AuditRow.event_type == REVIEW_LIST) & listed,
        )
    )
    if before is not None:
        statement = statement.where(AuditRow.id < before)
    since, end = span
    if since is not None:
        statement = statement.where(AuditRow.created_at >= since)
    if end is not None:
        statement = statement.where(AuditRow.created_at < end)
    return session.scalars(statement.order_by(AuditRow.id.desc()).limit(limit)).all()


def collect_everything(session: Session, anonymized_id: str) -> dict[str, Any]:
    """Return every row of this database about an individual, by kind."""
    return {
        "consents": _collect(session, Consent, anonymized_id, "granted_at"),
        "consent_notices": _collect(session, ConsentNotice, anonymized_id, "noticed_at"),
        "consent_history": [describe_row(row) for row in list_history(session, anonymized_id)],
        "predictions": _collect(session, Prediction, anonymized_id, "created_at"),
        "reviews": _collect(session, ReviewItem, anonymized_id, "created_at"),
        "review_events": _collect(session, ReviewEvent, anonymized_id, "created_at"),
        "contact_attempts": _collect(session, ContactAttempt, anonymized_id, "created_at"),
        "crisis_overrides": _collect(session, CrisisOverride, anonymized_id, "created_at"),
        "labels": _collect(session, PredictionLabel, anonymized_id, "settled_at"),
    }


def _collect(
    session: Session, table: type[Base], anonymized_id: str, order: str
) -> list[dict[str, Any]]:
    columns = table.__table__.c
    statement = select(table).where(columns.anonymized_id == anonymized_id)
    return [describe_row(row) for row in session.scalars(statement.order_by(columns[order]))]


def describe_export(anonymized_id: str, held: Mapping[str, Any]) -> dict[str, Any]:
    """Return an export as JSON: the person, the time, what is held, and what is elsewhere."""
    now = datetime.now(UTC).isoformat()
    head = {"anonymized_id": anonymized_id, "exported_at": now, "not_included": ELSEWHERE}
    return head | dict(held)
