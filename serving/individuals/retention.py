"""Retention by age: predictions, with everything that hangs on them, go after a set time.

A prediction whose review is still open stays, however old. Audit rows stay: the trail is a chain
(ADR 54).
"""

from datetime import datetime

from sqlalchemy import delete, exists, select
from sqlalchemy.orm import Session

from serving.database.review_terms import ReviewStatus
from serving.database.tables import (
    ContactAttempt,
    CrisisOverride,
    Prediction,
    ReviewEvent,
    ReviewItem,
)


def remove_predictions_before(session: Session, before: datetime, limit: int) -> int:
    """Remove up to `limit` of the oldest predictions made before an instant; return how many.

    Labels, shadow scores and idempotency keys go with them by their foreign keys.
    """
    is_open = exists().where(
        ReviewItem.prediction_id == Prediction.id, ReviewItem.status != ReviewStatus.DECIDED
    )
    statement = (
        select(Prediction.id)
        .where(Prediction.created_at < before, ~is_open)
        .order_by(Prediction.created_at)
        .limit(limit)
    )
    predictions = session.scalars(statement).all()
    reviews = select(ReviewItem.id).where(ReviewItem.prediction_id.in_(predictions))
    for table in (ReviewEvent, ContactAttempt):
        session.execute(delete(table).where(table.review_id.in_(reviews)))
    for linked in (CrisisOverride, ReviewItem):
        session.execute(delete(linked).where(linked.prediction_id.in_(predictions)))
    session.execute(delete(Prediction).where(Prediction.id.in_(predictions)))
    return len(predictions)
