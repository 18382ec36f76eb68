"""The compliance report of a period: counts from the record, never from memory."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field
from sqlalchemy import Numeric, Text, case, cast, func, select, type_coerce
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from mlruns_config.ledger import promotion_ledger
from serving.audit.reading import blank_unreadable
from serving.audit.trail import (
    ACCESS_REFUSED,
    COMPLIANCE_ACCESS,
    SCREENING_REQUEST,
    UNAUTHENTICATED,
    Event,
    EventTrail,
)
from serving.audit.verification import count_unsealed
from serving.consent.changes import count_expiring
from serving.database.review_terms import CRISIS_REASONS
from serving.database.tables import (
    AuditCheckpoint,
    AuditRow,
    AuditSeal,
    ConsentChange,
    ContactAttempt,
    CrisisNotice,
    CrisisOverride,
    DriftReport,
    Erasure,
    ErasureStore,
    Prediction,
    ReviewItem,
    TokenRevocation,
)
from serving.errors import UnusableError
from serving.reviews.queue import count_open, find_rank

#: A promotion leads to the first; a rollback takes a release back there from the second.
PRODUCTION, ARCHIVED = "Production", "Archived"

#: A row counts at most so many callers whose rows were suppressed.
MOST_SUPPRESSED = 1_000_000

#: Rows of the moment of the report; no record holds their past.
AS_OF_NOW = (
    "consents_expiring_in_7_days",
    "open_reviews_by_priority",
    "overdue_reviews",
    "erasures_waiting_by_store",
    "audit_trail",
)


class ReviewTimes(BaseModel):
    """How long items of a band, queued in the period, waited; hours, medians over items."""

    queued: int
    claimed: int
    decided: int
    decided_late: int = Field(description="After their due time.")
    hours_to_claim: float | None
    hours_to_decide: float | None


class GovernanceCounts(BaseModel):
    """What happened to releases, by the promotion ledger and the drift reports."""

    promotions: int
    refused_promotions: int
    gate_overrides: int
    rollbacks: int
    drift_reports: int
    drift_alarms: int = Field(description="Reports with an alarm of a modality.")


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
    crises: int = Field(description="Crises queued, by a questionnaire or a clinician.")
    crisis_notices: dict[str, int] = Field(description="Crisis notices by state.")
    contact_attempts: dict[str, int] = Field(description="By outcome.")
    override_reasons: dict[str, int]
    review_times: dict[str, ReviewTimes] = Field(description="By priority.")
    governance: GovernanceCounts
    releases_in_use: dict[str, int] = Field(description="Screenings by release version.")
    audit_trail: AuditState
    as_of_now: list[str] = Field(
        default=list(AS_OF_NOW),
        description="Fields that describe the moment of the report, not its period.",
    )


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
        open_reviews_by_priority=_add_up((count.priority, count.items) for count in queue),
        overdue_reviews=sum(count.overdue for count in queue),
        crisis_overrides=_count_all(session, CrisisOverride.created_at, since, until),
        erasures=_count_all(session, Erasure.requested_at, since, until),
        erasures_waiting_by_store=count_waiting(session),
        token_revocations=_count_all(session, TokenRevocation.created_at, since, until),
        crises=count_crises(session, since, until),
        crisis_notices=_count(session, CrisisNotice.state, CrisisNotice, since, until),
        contact_attempts=_count(session, ContactAttempt.outcome, ContactAttempt, since, until),
        override_reasons=count_override_reasons(session, since, until),
        review_times=measure_reviews(session, since, until),
        governance=count_governance(session, since, until),
        releases_in_use=_count(
            session, func.coalesce(Prediction.release_version, "none"), Prediction, since, until
        ),
        audit_trail=read_audit_state(session),
    )


def view_report(
    session: Session, trail: EventTrail, since: datetime, until: datetime
) -> ComplianceReport:
    """Return the report of a period, and record that it was opened.

    Raises UnusableError for a period that ends before it begins.
    """
    if since >= until:
        raise UnusableError("since must lie before until")
    trail.record(Event(COMPLIANCE_ACCESS, "view_compliance_report", data_types=["audit"]))
    return make_report(session, since, until)


def count_crises(session: Session, since: datetime, until: datetime) -> int:
    is_crisis = type_coerce(ReviewItem.reasons, ARRAY(Text)).overlap(list(CRISIS_REASONS))
    statement = select(func.count()).where(
        is_crisis, ReviewItem.created_at >= since, ReviewItem.created_at < until
    )
    return session.scalar(statement) or 0


def count_override_reasons(session: Session, since: datetime, until: datetime) -> dict[str, int]:
    statement = (
        select(ReviewItem.reason_code, func.count())
        .where(
            ReviewItem.reason_code.is_not(None),
            ReviewItem.decided_at >= since,
            ReviewItem.decided_at < until,
        )
        .group_by(ReviewItem.reason_code)
    )
    return _add_up(session.execute(statement).all())


def measure_reviews(session: Session, since: datetime, until: datetime) -> dict[str, ReviewTimes]:
    """Return how long the items queued in a period waited, by priority; one query."""
    item = ReviewItem

    def median_hours(end: Any) -> Any:
        hours = func.extract("epoch", end - item.created_at) / 3600
        return func.percentile_cont(0.5).within_group(hours)

    statement = (
        select(
            item.priority,
            func.count(),
            func.count(item.claimed_at),
            func.count(item.decided_at),
            func.count().filter(item.decided_at > item.due_at),
            median_hours(item.claimed_at),
            median_hours(item.decided_at),
        )
        .where(item.created_at >= since, item.created_at < until)
        .group_by(item.priority)
    )
    times = {priority: values for priority, *values in session.execute(statement)}
    return {
        priority: ReviewTimes(
            queued=values[0],
            claimed=values[1],
            decided=values[2],
            decided_late=values[3],
            hours_to_claim=_round(values[4]),
            hours_to_decide=_round(values[5]),
        )
        for priority, values in sorted(times.items(), key=lambda pair: find_rank(pair[0]))
    }


def _round(hours: Any) -> float | None:
    return None if hours is None else round(float(hours), 2)


def count_governance(session: Session, since: datetime, until: datetime) -> GovernanceCounts:
    ledger = promotion_ledger.c
    of_period = (ledger.created_at >= since, ledger.created_at < until)
    moved = (*of_period, ledger.result == "promoted", ledger.to_stage == PRODUCTION)
    by_result = _add_up(
        session.execute(
            select(ledger.result, func.count()).where(*of_period).group_by(ledger.result)
        )
    )
    by_origin = _add_up(
        session.execute(
            select(ledger.from_stage, func.count()).where(*moved).group_by(ledger.from_stage)
        )
    )
    drift = (DriftReport.created_at >= since, DriftReport.created_at < until)
    reports = select(func.count()).where(*drift)
    return GovernanceCounts(
        promotions=sum(by_origin.values()) - by_origin.get(ARCHIVED, 0),
        refused_promotions=by_result.get("refused", 0),
        gate_overrides=by_result.get("overridden", 0),
        rollbacks=by_origin.get(ARCHIVED, 0),
        drift_reports=session.scalar(reports) or 0,
        drift_alarms=session.scalar(reports.where(func.jsonb_array_length(DriftReport.alarms) > 0))
        or 0,
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
    given = AuditRow.details["suppressed"]
    # Other writers than ours can put anything there; it must not stop the report.
    is_count = func.jsonb_typeof(given) == "number"
    number = case((is_count, cast(given.astext, Numeric)), else_=0)
    suppressed = func.greatest(0, func.least(number, MOST_SUPPRESSED))
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
        signed_at=blank_unreadable(newest.signed_at) if newest else None,
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
