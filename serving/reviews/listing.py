"""What a list of review items shows of each without a call per item: two queries a page."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from serving.database.tables import Prediction, ReviewItem
from serving.screening.answers import TrendPart
from serving.screening.recorder import TREND_LENGTH


@dataclass(frozen=True)
class ListedScreening:
    """The screening of an item, and the earlier ones of the person, oldest first."""

    summary: str
    why: list[str]
    probability: float | None
    data_as_of: dict[str, datetime | None]
    trend: list[TrendPart] = field(default_factory=list)


def read_listed(session: Session, items: Sequence[ReviewItem]) -> dict[UUID, ListedScreening]:
    """Return the screenings of items by prediction; an erased one is left out."""
    statement = select(Prediction.id, Prediction.answer).where(
        Prediction.id.in_([item.prediction_id for item in items])
    )
    answers: dict[UUID, dict[str, Any]] = {row.id: row.answer for row in session.execute(statement)}
    trends = read_trends(session, [item.anonymized_id for item in items])
    return {
        item.prediction_id: describe_screening(
            answers[item.prediction_id], trends.get(item.anonymized_id, [])
        )
        for item in items
        if item.prediction_id in answers
    }


def describe_screening(answer: dict[str, Any], trend: list[TrendPart]) -> ListedScreening:
    return ListedScreening(
        summary=str(answer.get("summary", "")),
        why=[str(reason["text"]) for reason in answer.get("review_reasons", [])],
        probability=answer.get("probability"),
        data_as_of=answer.get("data_as_of", {}),
        trend=trend,
    )


def read_trends(session: Session, individuals: Sequence[str]) -> dict[str, list[TrendPart]]:
    """Return the last TREND_LENGTH answers about each individual, oldest first, in one query."""
    place = func.row_number().over(
        partition_by=Prediction.anonymized_id, order_by=Prediction.created_at.desc()
    )
    numbered = (
        select(
            Prediction.anonymized_id,
            Prediction.created_at,
            Prediction.risk_score,
            Prediction.risk_band,
            Prediction.probability,
            place.label("place"),
        )
        .where(Prediction.anonymized_id.in_(set(individuals)))
        .subquery()
    )
    latest = select(numbered).where(numbered.c.place <= TREND_LENGTH)
    trends: dict[str, list[TrendPart]] = {}
    for row in session.execute(latest.order_by(numbered.c.created_at)):
        trends.setdefault(row.anonymized_id, []).append(TrendPart.model_validate(row))
    return trends
