"""The review queue: its order, claims and decisions.

Every change is one conditional UPDATE, so of two clinicians who reach for the same item one
gets it. Open items are pending or claimed; ORDER has the most urgent first.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Text,
    and_,
    any_,
    case,
    exists,
    func,
    or_,
    select,
    tuple_,
    type_coerce,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from serving.database.review_terms import (
    CLAIM_LAPSES_AFTER,
    CRISIS_REASONS,
    REVIEW_WITHIN,
    Decision,
    OverrideReason,
    ReviewStatus,
)
from serving.database.tables import CrisisOverride, Prediction, ReviewEvent, ReviewItem
from serving.errors import (
    ClaimedByAnotherError,
    ConflictError,
    NotFoundError,
    Principal,
    ProblemError,
    SecondPersonNeededError,
)
from serving.roles import Role
from serving.scoring.estimate import Band

OPEN = (ReviewStatus.PENDING, ReviewStatus.CLAIMED)
PRIORITIES = tuple(REVIEW_WITHIN)

#: 0 is most urgent; an unknown priority counts like it rather than be lost at the end.
RANK = case(
    {priority: rank for rank, priority in enumerate(PRIORITIES)}, value=ReviewItem.priority, else_=0
)


#: Most urgent first: by band; crises by the answer to item 9 (3 before 1); then by score; then
#: who waits longest.
ORDER = (
    RANK,
    -ReviewItem.crisis_level,
    -ReviewItem.risk_score,
    ReviewItem.created_at,
    ReviewItem.id,
)


class QueueOrder(StrEnum):
    """In which order a list shows the queue; urgency is the one to work by."""

    URGENCY = "urgency"
    DUE = "due"
    WAITING = "waiting"
    NEWEST = "newest"


#: Columns of each order; the last one settles ties. NEWEST runs backward through WAITING's.
ORDERS: dict[QueueOrder, tuple[Any, ...]] = {
    QueueOrder.URGENCY: ORDER,
    QueueOrder.DUE: (ReviewItem.due_at, ReviewItem.id),
    QueueOrder.WAITING: (ReviewItem.created_at, ReviewItem.id),
    QueueOrder.NEWEST: (ReviewItem.created_at, ReviewItem.id),
}


@dataclass(frozen=True)
class QueueFilter:
    """Which items a listing holds; None: any. Without a status, those still open."""

    status: ReviewStatus | None = None
    priority: str | None = None
    reason: str | None = None
    claimed_by: str | None = None
    overdue: bool | None = None
    anonymized_id: str | None = None


@dataclass(frozen=True)
class ReviewDecision:
    """A decision as a clinician gives it; an override has a band, a reason and a comment."""

    decision: Decision
    comment: str | None = None
    new_band: str | None = None
    reason_code: OverrideReason | None = None


def list_items(
    session: Session,
    wanted: QueueFilter,
    after: Sequence[Any] | None,
    limit: int,
    order: QueueOrder = QueueOrder.URGENCY,
) -> Sequence[ReviewItem]:
    """Return up to `limit` items after a position (`find_position`), in an order."""
    columns, backward = ORDERS[order], order is QueueOrder.NEWEST
    statement = select(ReviewItem).where(*_make_conditions(wanted, datetime.now(UTC)))
    if after is not None:
        place = tuple_(*columns)
        statement = statement.where(place < after if backward else place > after)
    ordered = [column.desc() for column in columns] if backward else columns
    return session.scalars(statement.order_by(*ordered).limit(limit)).all()


def _make_conditions(wanted: QueueFilter, now: datetime) -> Iterator[ColumnElement[bool]]:
    yield (
        ReviewItem.status.in_(OPEN)
        if wanted.status is None
        else (ReviewItem.status == wanted.status)
    )
    if wanted.priority is not None:
        yield ReviewItem.priority == wanted.priority
    if wanted.reason is not None:
        yield any_(ReviewItem.reasons) == wanted.reason
    if wanted.claimed_by is not None:
        yield ReviewItem.claimed_by == wanted.claimed_by
    if wanted.anonymized_id is not None:
        yield ReviewItem.anonymized_id == wanted.anonymized_id
    if wanted.overdue is not None:
        is_open = ReviewItem.status.in_(OPEN)
        late = and_(is_open, ReviewItem.due_at < now)
        yield late if wanted.overdue else ~late


def find_position(item: ReviewItem, order: QueueOrder = QueueOrder.URGENCY) -> tuple[Any, ...]:
    """Return the place of an item in an order, as ORDERS computes it."""
    if order is QueueOrder.URGENCY:
        rank = find_rank(item.priority)
        return rank, -item.crisis_level, -item.risk_score, item.created_at, item.id
    moment = item.due_at if order is QueueOrder.DUE else item.created_at
    return moment, item.id


def find_rank(priority: str) -> int:
    """Return how urgent a priority is, as RANK does."""
    return PRIORITIES.index(priority) if priority in PRIORITIES else 0


def find_item(session: Session, review_id: UUID) -> ReviewItem:
    """Return a review item; raises NotFoundError."""
    item = session.get(ReviewItem, review_id)
    if item is None:
        raise NotFoundError("there is no such review item; it may have been erased")
    return item


def find_prediction(session: Session, prediction_id: UUID) -> Prediction:
    """Return a prediction; raises NotFoundError."""
    prediction = session.get(Prediction, prediction_id)
    if prediction is None:
        raise NotFoundError("there is no such prediction; it may have been erased")
    return prediction


def list_open(session: Session, individuals: Sequence[str]) -> Sequence[ReviewItem]:
    """Return the open items of any of the individuals."""
    statement = select(ReviewItem).where(
        ReviewItem.anonymized_id.in_(individuals), ReviewItem.status.in_(OPEN)
    )
    return session.scalars(statement).all()


def find_newest_of_prediction(session: Session, prediction_id: UUID) -> ReviewItem | None:
    """Return the newest item of a prediction, open or decided; None where it was never queued."""
    statement = select(ReviewItem).where(ReviewItem.prediction_id == prediction_id)
    return session.scalars(statement.order_by(ReviewItem.created_at.desc()).limit(1)).first()


def list_of_individual(session: Session, anonymized_id: str, limit: int = 20) -> list[ReviewItem]:
    """Return the last items of an individual, newest first, open or decided."""
    statement = select(ReviewItem).where(ReviewItem.anonymized_id == anonymized_id)
    order = (ReviewItem.created_at.desc(), ReviewItem.id)
    return list(session.scalars(statement.order_by(*order).limit(limit)))


def list_events(session: Session, review_id: UUID) -> Sequence[ReviewEvent]:
    statement = select(ReviewEvent).where(ReviewEvent.review_id == review_id)
    return session.scalars(statement.order_by(ReviewEvent.id)).all()


def claim(session: Session, review_id: UUID, principal: Principal) -> ReviewItem:
    """Take an item on; of two who try at once, one does. Claiming one's own again is no error.

    Raises NotFoundError, ClaimedByAnotherError, and ConflictError when it is decided.
    """
    now = datetime.now(UTC)
    changed = _change(
        session,
        review_id,
        _may_take(principal, now),
        status=ReviewStatus.CLAIMED,
        claimed_by=principal.user_id,
        claimed_at=now,
    )
    if not changed:
        raise _explain(session, review_id, principal, "claim_review")
    return _note(session, review_id, principal, "claimed")


def release(session: Session, review_id: UUID, principal: Principal) -> ReviewItem:
    """Give an item back; its owner may, and an admin for those who are away.

    Raises ConflictError or RefusedError.
    """
    owned: ColumnElement[bool] = ReviewItem.status == ReviewStatus.CLAIMED
    if principal.role is not Role.ADMIN:
        owned = and_(owned, ReviewItem.claimed_by == principal.user_id)
    changed = _change(
        session,
        review_id,
        owned,
        status=ReviewStatus.PENDING,
        claimed_by=None,
        claimed_at=None,
    )
    if not changed:
        raise _explain(session, review_id, principal, "release_review")
    return _note(session, review_id, principal, "released")


def decide(
    session: Session, review_id: UUID, principal: Principal, decision: ReviewDecision
) -> ReviewItem:
    """Close an item that no other clinician has claimed.

    Raises NotFoundError, ConflictError when it is decided, and, both audited,
    ClaimedByAnotherError and SecondPersonNeededError when the decision lowers a crisis that the
    same clinician declared.
    """
    now = datetime.now(UTC)
    may_decide = _may_take(principal, now)
    if _lowers_crisis(decision):
        may_decide = and_(may_decide, ~_declared_by(principal))
    changed = _change(
        session,
        review_id,
        may_decide,
        status=ReviewStatus.DECIDED,
        claimed_by=principal.user_id,
        decided_by=principal.user_id,
        decided_at=now,
        decision=decision.decision,
        new_band=decision.new_band,
        reason_code=decision.reason_code,
        comment=decision.comment,
    )
    if not changed:
        raise _explain(session, review_id, principal, "decide_review")
    return _note(session, review_id, principal, decision.decision, decision.comment)


def _lowers_crisis(decision: ReviewDecision) -> bool:
    return decision.decision == Decision.OVERRIDE and decision.new_band != Band.CRITICAL


def _declared_by(principal: Principal) -> ColumnElement[bool]:
    """Return the condition of items that this clinician's own crisis override is about."""
    return exists().where(
        CrisisOverride.review_id == ReviewItem.id, CrisisOverride.user_id == principal.user_id
    )


def add_note(session: Session, review_id: UUID, principal: Principal, note: str) -> ReviewItem:
    """Write something down beside an item, open or decided."""
    find_item(session, review_id)
    return _note(session, review_id, principal, "noted", note)


def _may_take(principal: Principal, now: datetime) -> ColumnElement[bool]:
    lapsed = ReviewItem.claimed_at < now - CLAIM_LAPSES_AFTER
    own = ReviewItem.claimed_by == principal.user_id
    claimed = and_(ReviewItem.status == ReviewStatus.CLAIMED, or_(own, lapsed))
    return or_(ReviewItem.status == ReviewStatus.PENDING, claimed)


def _change(
    session: Session, review_id: UUID, condition: ColumnElement[bool], **values: Any
) -> bool:
    statement = (
        update(ReviewItem)
        .where(ReviewItem.id == review_id, condition)
        .values(**values)
        .returning(ReviewItem.id)
    )
    return session.scalar(statement) is not None


def _note(
    session: Session, review_id: UUID, principal: Principal, action: str, note: str | None = None
) -> ReviewItem:
    item = session.get_one(ReviewItem, review_id, populate_existing=True)
    session.add(
        ReviewEvent(
            review_id=review_id,
            anonymized_id=item.anonymized_id,
            created_at=datetime.now(UTC),
            user_id=principal.user_id,
            action=action,
            note=note,
        )
    )
    session.flush()
    return item


def _explain(session: Session, review_id: UUID, principal: Principal, action: str) -> ProblemError:
    """Return why a change did not apply."""
    try:
        item = find_item(session, review_id)
    except NotFoundError as error:
        return error
    if item.status == ReviewStatus.CLAIMED and item.claimed_by != principal.user_id:
        return ClaimedByAnotherError(
            "the item is claimed by another clinician", principal, action, item.anonymized_id
        )
    if item.status in OPEN and action == "decide_review":
        return SecondPersonNeededError(
            "you declared this crisis; another clinician must decide to lower it",
            principal,
            action,
            item.anonymized_id,
        )
    return ConflictError(f"the item is {item.status}")


@dataclass(frozen=True)
class QueueCount:
    priority: str
    status: str
    items: int
    overdue: int


def count_open(session: Session) -> list[QueueCount]:
    """Return how many items are open by priority and status, and how many are late."""
    late = func.count().filter(ReviewItem.due_at < datetime.now(UTC))
    statement = (
        select(ReviewItem.priority, ReviewItem.status, func.count(), late)
        .where(ReviewItem.status.in_(OPEN))
        .group_by(ReviewItem.priority, ReviewItem.status)
    )
    return [QueueCount(*row) for row in session.execute(statement).all()]


def count_crises_left(session: Session) -> int:
    """Return how many crises no clinician has claimed although their due time is over."""
    is_crisis = type_coerce(ReviewItem.reasons, ARRAY(Text)).overlap(list(CRISIS_REASONS))
    statement = select(func.count()).where(
        ReviewItem.status == ReviewStatus.PENDING,
        ReviewItem.due_at < datetime.now(UTC),
        is_crisis,
    )
    return session.scalar(statement) or 0
