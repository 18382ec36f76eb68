"""The records of an answered screening: prediction, review item, audit row."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from serving import audit
from serving.answers import ScreeningAnswer
from serving.database.tables import Prediction, ReviewItem
from serving.errors import Principal
from serving.judgement import Judgement

PENDING = "pending"


@dataclass(frozen=True)
class Caller:
    """Who asks, in which request, and until when an answer is of use (monotonic seconds)."""

    principal: Principal
    request_id: str | None
    deadline: float


def record(
    session: Session,
    answer: ScreeningAnswer,
    caller: Caller,
    consented: frozenset[str],
    judgement: Judgement | None,
) -> None:
    """Add prediction, review item and audit row to the session and send them."""
    inputs = {"features": dict(judgement.values)} if judgement else {"features": {}}
    session.add(make_prediction(answer, caller.principal, inputs))
    if answer.needs_review:
        session.add(make_review_item(answer))
    audit.record_screening(
        session,
        caller.principal,
        answer.anonymized_id,
        consented - set(answer.missing_data),
        caller.request_id,
        {
            "prediction_id": str(answer.prediction_id),
            "risk_score": answer.risk_score,
            "release_version": answer.release.version if answer.release else None,
        },
    )
    session.flush()


def make_prediction(
    answer: ScreeningAnswer, principal: Principal, inputs: Mapping[str, Any]
) -> Prediction:
    return Prediction(
        id=answer.prediction_id,
        anonymized_id=answer.anonymized_id,
        created_at=answer.created_at,
        user_id=principal.user_id,
        risk_score=answer.risk_score,
        probability=answer.probability,
        risk_band=answer.risk_band.value,
        confidence=answer.confidence,
        needs_review=answer.needs_review,
        review_reasons=[reason.code.value for reason in answer.review_reasons],
        release_version=str(answer.release.version) if answer.release else None,
        answer=answer.model_dump(mode="json") | dict(inputs),
    )


def make_review_item(answer: ScreeningAnswer) -> ReviewItem:
    return ReviewItem(
        id=uuid.uuid4(),
        prediction_id=answer.prediction_id,
        anonymized_id=answer.anonymized_id,
        created_at=answer.created_at,
        priority=answer.risk_band.value,
        reasons=[reason.code.value for reason in answer.review_reasons],
        status=PENDING,
    )
