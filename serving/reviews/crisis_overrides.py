"""A clinician's override: it puts a prediction into the top band and the queue at once.

It needs the database alone: no model, no registry, no feature store, and no consent, for it
uses no data of the individual beyond the prediction it points at. It never lowers anything.
"""

import uuid
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from serving.database.review_terms import ReviewStatus, find_due_time
from serving.database.tables import CrisisOverride, Prediction, ReviewEvent, ReviewItem
from serving.errors import Principal
from serving.reviews.queue import OPEN
from serving.scoring.crisis import UNKNOWN_LEVEL
from serving.scoring.estimate import Band
from serving.screening.composition import CRISIS_SCORE

#: Code of the review reason that an override leaves.
CLINICIAN_OVERRIDE = "clinician_override"


def override(
    session: Session, prediction: Prediction, principal: Principal, comment: str
) -> CrisisOverride:
    """Record the override and see that an open review item of top priority exists."""
    now = datetime.now(UTC)
    item = _find_open_item(session, prediction.id) or _make_item(session, prediction, now)
    item.crisis_level = UNKNOWN_LEVEL
    if item.priority != Band.CRITICAL:
        item.priority = Band.CRITICAL
        item.due_at = min(item.due_at, find_due_time(now, Band.CRITICAL))
    if CLINICIAN_OVERRIDE not in item.reasons:
        item.reasons = [*item.reasons, CLINICIAN_OVERRIDE]
    session.add(_make_event(item, principal, comment, now))
    made = CrisisOverride(
        id=uuid.uuid4(),
        prediction_id=prediction.id,
        review_id=item.id,
        anonymized_id=prediction.anonymized_id,
        created_at=now,
        user_id=principal.user_id,
        comment=comment,
    )
    session.add(made)
    session.flush()
    return made


def find_override(session: Session, prediction_id: UUID) -> CrisisOverride | None:
    """Return the latest override of a prediction; with one, its band is the top one."""
    statement = select(CrisisOverride).where(CrisisOverride.prediction_id == prediction_id)
    return session.scalars(statement.order_by(CrisisOverride.created_at.desc()).limit(1)).first()


def _find_open_item(session: Session, prediction_id: UUID) -> ReviewItem | None:
    # Locked: a running decision is finished first, and then a new item is needed.
    statement = (
        select(ReviewItem)
        .where(ReviewItem.prediction_id == prediction_id, ReviewItem.status.in_(OPEN))
        .order_by(ReviewItem.created_at)
        .limit(1)
        .with_for_update()
    )
    return session.scalars(statement).first()


def _make_item(session: Session, prediction: Prediction, now: datetime) -> ReviewItem:
    item = ReviewItem(
        id=uuid.uuid4(),
        prediction_id=prediction.id,
        anonymized_id=prediction.anonymized_id,
        created_at=now,
        priority=Band.CRITICAL,
        reasons=[CLINICIAN_OVERRIDE],
        crisis_level=UNKNOWN_LEVEL,
        risk_score=CRISIS_SCORE,
        status=ReviewStatus.PENDING,
        due_at=find_due_time(now, Band.CRITICAL),
    )
    session.add(item)
    return item


def _make_event(item: ReviewItem, principal: Principal, comment: str, now: datetime) -> ReviewEvent:
    return ReviewEvent(
        review_id=item.id,
        anonymized_id=item.anonymized_id,
        created_at=now,
        user_id=principal.user_id,
        action="crisis_override",
        note=comment,
    )
