"""Numbers out of JSON columns, in SQL: what is no number is NULL instead of an error."""

from typing import Any

from sqlalchemy import ColumnElement, Float, case, cast, null

#: A double holds each of these; others are no measurement of ours.
PLAIN_NUMBER = r"^-?[0-9]{1,15}(\.[0-9]{1,40})?(e-?[0-9]{1,2})?$"


def read_number(element: Any) -> ColumnElement[float | None]:
    """Return the SQL of a number within a JSON column; one odd row fails no statement."""
    written = element.as_string()
    return case((written.regexp_match(PLAIN_NUMBER), cast(written, Float)), else_=null())
