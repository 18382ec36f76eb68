"""What people do with review items, each change with its audit row: for routes and pages alike.

Every function takes the trail of the request, whose rows join the transaction of the change.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from monitoring.metrics import ALERTS_TRIGGERED, CRISIS_OVERRIDES, REVIEW_DECISIONS
from serving.audit.trail import (
    CRISIS_OVERRIDE,
    REVIEW_CHANGE,
    REVIEW_LIST,
    REVIEW_VIEW,
    Event,
    EventTrail,
)
from serving.database.sessions import run_after_commit
from serving.database.tables import CrisisOverride, Prediction, ReviewItem
from serving.errors import FeatureDisabledError, Principal
from serving.reviews import contacts, queue
from serving.reviews.contacts import Contact
from serving.reviews.crisis_overrides import override
from serving.reviews.listing import ListedScreening, read_listed
from serving.reviews.queue import QueueFilter, QueueOrder, ReviewDecision, find_position

OVERRIDE_ACTION = "override_crisis"


@dataclass(frozen=True)
class ListedQueue:
    """One page of the queue; `next_position` is None on the last."""

    items: list[ReviewItem]
    screenings: dict[UUID, ListedScreening]
    next_position: tuple[Any, ...] | None


def list_queue(
    session: Session,
    trail: EventTrail,
    wanted: QueueFilter,
    after: Sequence[Any] | None,
    limit: int,
    order: QueueOrder = QueueOrder.URGENCY,
) -> ListedQueue:
    """Return a page of the queue with each item's screening; the viewing names every individual."""
    items = list(queue.list_items(session, wanted, after, limit + 1, order))
    shown = items[:limit]
    individuals = sorted({item.anonymized_id for item in shown})
    trail.record(Event(REVIEW_LIST, "list_reviews", details={"individuals": individuals}))
    more = find_position(shown[-1], order) if len(items) > limit else None
    return ListedQueue(shown, read_listed(session, shown), more)


def view_item(session: Session, trail: EventTrail, review_id: UUID) -> ReviewItem:
    """Return an item that a person opens; raises NotFoundError."""
    item = queue.find_item(session, review_id)
    trail.record(Event(REVIEW_VIEW, "view_review", item.anonymized_id, ["prediction"]))
    return item


def claim(session: Session, trail: EventTrail, review_id: UUID, principal: Principal) -> ReviewItem:
    item = queue.claim(session, review_id, principal)
    return _record_change(trail, item, "claim_review")


def release(
    session: Session, trail: EventTrail, review_id: UUID, principal: Principal
) -> ReviewItem:
    item = queue.release(session, review_id, principal)
    return _record_change(trail, item, "release_review")


def decide(
    session: Session,
    trail: EventTrail,
    review_id: UUID,
    principal: Principal,
    decision: ReviewDecision,
) -> ReviewItem:
    item = queue.decide(session, review_id, principal, decision)
    labels = decision.decision.value, item.priority
    run_after_commit(session, lambda: REVIEW_DECISIONS.labels(*labels).inc())
    return _record_change(trail, item, "decide_review")


def add_note(
    session: Session, trail: EventTrail, review_id: UUID, principal: Principal, note: str
) -> ReviewItem:
    item = queue.add_note(session, review_id, principal, note)
    return _record_change(trail, item, "note_review")


def add_contact(
    session: Session, trail: EventTrail, review_id: UUID, principal: Principal, contact: Contact
) -> ReviewItem:
    contacts.add_contact(session, review_id, principal, contact)
    return _record_change(trail, queue.find_item(session, review_id), "record_contact")


def override_crisis(
    session: Session,
    trail: EventTrail,
    prediction: Prediction,
    principal: Principal,
    comment: str,
    is_enabled: bool,
) -> CrisisOverride:
    """Put a screening into the top band and before a person.

    Raises FeatureDisabledError where the setting switches it off.
    """
    if not is_enabled:
        raise FeatureDisabledError(
            "ENABLE_CRISIS_OVERRIDE is off; follow your service's own crisis procedure",
            principal,
            OVERRIDE_ACTION,
        )
    made = override(session, prediction, principal, comment)
    details = {"prediction_id": str(prediction.id), "review_id": str(made.review_id)}
    individual = prediction.anonymized_id
    trail.record(Event(CRISIS_OVERRIDE, OVERRIDE_ACTION, individual, ["prediction"], details))
    run_after_commit(session, _count_override)
    return made


def _count_override() -> None:
    CRISIS_OVERRIDES.inc()
    ALERTS_TRIGGERED.labels("clinician").inc()


def _record_change(trail: EventTrail, item: ReviewItem, action: str) -> ReviewItem:
    details = {
        "review_id": str(item.id),
        "decision": item.decision,
        "new_band": item.new_band,
        "reason_code": item.reason_code,
    }
    trail.record(Event(REVIEW_CHANGE, action, item.anonymized_id, ["prediction"], details))
    return item
