"""Recorded screenings as rows to label: their index dates and the kinds of label."""

from datetime import UTC, date, datetime, timedelta

from sqlalchemy import ColumnElement

from feature_repo.answer_features import INDEX_DAY
from feature_repo.outcomes import ADVERSE_COURSE
from serving.database.json_numbers import read_number
from serving.database.tables import Prediction

#: Kinds of label: an outcome by its name, or a review.
OUTCOME, REVIEW = ADVERSE_COURSE.name, "review"
#: Days since 1970 to the end of the calendar.
LAST_DAY = (date.max - date(1970, 1, 1)).days


def index_day() -> ColumnElement[float | None]:
    """Return the SQL of the day (days since 1970) that the answers of a prediction are of."""
    return read_number(Prediction.inputs["request"][INDEX_DAY])


def find_index_date(created_at: datetime, day: float | None) -> date:
    # None: of before requests were kept with the inputs, or no day of the calendar.
    if day is None or not 0 <= day < LAST_DAY:
        return created_at.astimezone(UTC).date()
    return date(1970, 1, 1) + timedelta(days=int(day))
