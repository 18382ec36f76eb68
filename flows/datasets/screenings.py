"""Recorded screenings as rows to label: their index dates and the kinds of label."""

from datetime import UTC, date, datetime, timedelta

from sqlalchemy import ColumnElement

from feature_repo.answer_features import INDEX_DAY
from feature_repo.outcomes import ADVERSE_COURSE
from serving.database.tables import Prediction

#: Kinds of label: an outcome by its name, or a review.
OUTCOME, REVIEW = ADVERSE_COURSE.name, "review"


def index_day() -> ColumnElement[float]:
    """Return the SQL of the day (days since 1970) that the answers of a prediction are of."""
    return Prediction.inputs["request"][INDEX_DAY].as_float()


def find_index_date(created_at: datetime, day: float | None) -> date:
    if day is None:  # of before requests were kept with the inputs
        return created_at.astimezone(UTC).date()
    return date(1970, 1, 1) + timedelta(days=int(day))
