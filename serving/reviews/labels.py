"""Decisions of clinicians as labels: what the outcome flow reads to learn from reviews.

A label is what a reviewer found right, not the outcome of the individual; training must keep the
two apart. Referred items say nothing yet and are left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from serving.database.review_terms import Decision, ReviewStatus
from serving.database.tables import Prediction, ReviewItem


@dataclass(frozen=True)
class ReviewLabel:
    """One decided review; `reviewed_band` is the clinician's, `model_score` the release's."""

    prediction_id: UUID
    anonymized_id: str
    screened_at: datetime
    decided_at: datetime
    release_version: str | None
    model_score: float | None
    given_band: str
    reviewed_band: str
    reason_code: str | None


def read_review_labels(session: Session, since: datetime) -> Iterator[ReviewLabel]:
    """Yield the agreements and overrides decided from `since` on, oldest first."""
    statement = (
        select(ReviewItem, Prediction)
        .join(Prediction, Prediction.id == ReviewItem.prediction_id)
        .where(
            ReviewItem.status == ReviewStatus.DECIDED,
            ReviewItem.decision.in_((Decision.AGREE, Decision.OVERRIDE)),
            ReviewItem.decided_at >= since,
        )
        .order_by(ReviewItem.decided_at, ReviewItem.id)
    )
    for item, prediction in session.execute(statement):
        yield ReviewLabel(
            prediction_id=prediction.id,
            anonymized_id=item.anonymized_id,
            screened_at=prediction.created_at,
            decided_at=item.decided_at or item.created_at,
            release_version=prediction.release_version,
            model_score=prediction.answer.get("model_score"),
            given_band=prediction.risk_band,
            reviewed_band=item.new_band or item.priority,
            reason_code=item.reason_code,
        )
