"""The compliance report of a period: counts from the record, never from memory."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from serving.audit.trail import ACCESS_REFUSED, SCREENING_REQUEST, UNAUTHENTICATED
from serving.audit.verification import count_unsealed
from serving.consent.changes import count_expiring
from serving.database.tables import (
    AuditCheckpoint,
    AuditRow,
    AuditSeal,
    ConsentChange,
    CrisisOverride,
    Erasure,
    ErasureStore,
    Prediction,
    ReviewItem,
    TokenRevocation,
)
from serving.reviews.queue import count_open


class AuditState(BaseModel):
    sealed_rows: int
    unsealed_rows: int
    newest_checkpoint: int | None
    signed_at: datetime | None


class ComplianceReport(BaseModel):
    """What was done, refused and decided from `since` until `until`.

    Counts of things that erasure removes (consent changes, review decisions) are of what is
    still held; those from the audit trail are complete.
    """

    since: datetime
    until: datetime
    screenings: int
    screenings_by_band: dict[str, int]
    refusals_by_reason: dict[str, int]
    consent_failures: int
    unauthenticated_requests: int
    events: dict[str, int] = Field(description="Rows of the audit trail by type.")
    active_users_by_role: dict[str, int]
    consent_changes: dict[str, int]
    consents_expiring_in_7_days: int
    review_decisions: dict[str, int]
    open_reviews_by_priority: dict[str, int]
    overdue_reviews: int
    crisis_overrides: int
    erasures: int
    erasures_waiting_by_store: dict[str, int]
    token_revocations: int
    releases_in_use: dict[str, int] = Field(description="Screenings by release version.")
    audit_trail: AuditState


def make_report(session: Session, since: datetime, until: datetime) -> ComplianceReport:
    """Count everything in one transaction's view of the database."""
    refusals = count_refusals(session, since, until)
    queue = count_open(session)
    return ComplianceReport(
        since=since,
        until=until,
        screenings=count_events(session, since, until).get(SCREENING_REQUEST, 0),
        screenings_by_band=_count(session, Prediction.risk_band, Prediction, since, until),
        refusals_by_reason=refusals,
        consent_failures=refusals.get("consent-missing", 0),
        unauthenticated_requests=count_unauthenticated(session, since, until),
        events=count_events(session, since, until),
        active_users_by_role=count_users(session, since, until),
        consent_changes=_count(
            session, ConsentChange.change, ConsentChange, since, until, ConsentChange.changed_at
        ),
        consents_expiring_in_7_days=count_expiring(session),
        review_decisions=_count(
            session, ReviewItem.decision, ReviewItem, since, until, ReviewItem.decided_at
        ),
        open_reviews_by_priority=_add_up((one.priority, one.items) for one in queue),
        overdue_reviews=sum(one.overdue for one in queue),
        crisis_overrides=_count_all(session, CrisisOverride.created_at, since, until),
        erasures=_count_all(session, Erasure.requested_at, since, until),
        erasures_waiting_by_store=count_waiting(session),
        token_revocations=_count_all(session, TokenRevocation.created_at, since, until),
        releases_in_use=_count(
            session, func.coalesce(Prediction.release_version, "none"), Prediction, since, until
        ),
        audit_trail=read_audit_state(session),
    )


def count_events(session: Session, since: datetime, until: datetime) -> dict[str, int]:
    return _count(session, AuditRow.event_type, AuditRow, since, until)


def count_refusals(session: Session, since: datetime, until: datetime) -> dict[str, int]:
    reason = AuditRow.details["reason"].astext
    statement = (
        select(reason, func.count())
        .where(
            AuditRow.event_type == ACCESS_REFUSED,
            AuditRow.created_at >= since,
            AuditRow.created_at < until,
        )
        .group_by(reason)
    )
    return _add_up(session.execute(statement).all())


def count_unauthenticated(session: Session, since: datetime, until: datetime) -> int:
    """Return how many had no valid token, those included whose row was suppressed."""
    suppressed = func.coalesce(AuditRow.details["suppressed"].as_integer(), 0)
    statement = select(func.coalesce(func.sum(suppressed + 1), 0)).where(
        AuditRow.event_type == UNAUTHENTICATED,
        AuditRow.created_at >= since,
        AuditRow.created_at < until,
    )
    return int(session.scalar(statement) or 0)


def count_users(session: Session, since: datetime, until: datetime) -> dict[str, int]:
    statement = (
        select(AuditRow.user_role, func.count(AuditRow.user_id.distinct()))
        .where(
            AuditRow.created_at >= since,
            AuditRow.created_at < until,
            AuditRow.event_type != UNAUTHENTICATED,
        )
        .group_by(AuditRow.user_role)
    )
    return _add_up(session.execute(statement).all())


def count_waiting(session: Session) -> dict[str, int]:
    statement = (
        select(ErasureStore.store, func.count())
        .where(ErasureStore.state != "done")
        .group_by(ErasureStore.store)
    )
    return _add_up(session.execute(statement).all())


def read_audit_state(session: Session) -> AuditState:
    newest = session.scalars(
        select(AuditCheckpoint).order_by(AuditCheckpoint.position.desc()).limit(1)
    ).first()
    return AuditState(
        sealed_rows=session.scalar(select(func.coalesce(func.max(AuditSeal.position), 0))) or 0,
        unsealed_rows=count_unsealed(session.connection()),
        newest_checkpoint=newest.position if newest else None,
        signed_at=newest.signed_at if newest else None,
    )


def _count(
    session: Session, by: Any, table: Any, since: datetime, until: datetime, at: Any = None
) -> dict[str, int]:
    """Count the rows of a period by a column; `at` is their instant, created_at by default."""
    moment = table.created_at if at is None else at
    statement = select(by, func.count()).select_from(table).where(moment >= since, moment < until)
    return _add_up(session.execute(statement.group_by(by)).all())


def _count_all(session: Session, at: Any, since: datetime, until: datetime) -> int:
    return session.scalar(select(func.count()).where(at >= since, at < until)) or 0


def _add_up(pairs: Any) -> dict[str, int]:
    total: dict[str, int] = {}
    for name, count in pairs:
        total[str(name)] = total.get(str(name), 0) + count
    return dict(sorted(total.items()))
