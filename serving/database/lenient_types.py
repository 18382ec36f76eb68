"""Column types of the audit trail: reading a row never raises, regardless of what it holds.

PostgreSQL holds times, numbers and nesting that Python does not, and the API's login can write
them. A value of the trail is therefore read as text and decoded here; what is outside of these
limits is returned as `Unreadable`. The limits depend on neither the driver nor the interpreter:
what one process can read every process can read. Decision: infra/adr/0011.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ARRAY, DateTime, Dialect, Text, cast, func, literal_column, type_coerce
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.types import TypeDecorator, TypeEngine

#: Levels of brackets; the trail's own rows have three.
MOST_LEVELS = 100
#: Digits in a row; a longer number is infinite as a float.
MOST_DIGITS = 300
#: Years at the ends of Python's calendar do not exist in every time zone.
FIRST_YEAR, LAST_YEAR = 2, 9998

_INSTANT = re.compile(r"(\d{4})-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True)
class Unreadable:
    """A value that Python cannot hold or that no row of the trail has, as PostgreSQL's text."""

    text: str


def read_instant(text: str) -> datetime | Unreadable:
    """Return the instant of PostgreSQL's ISO 8601 text in UTC."""
    match = _INSTANT.fullmatch(text)
    if match is None or not FIRST_YEAR <= int(match[1]) <= LAST_YEAR:
        return Unreadable(text)
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def read_object(text: str) -> dict[str, Any] | Unreadable:
    """Return the JSON object that a text holds."""
    if not text.startswith("{") or not _is_within_limits(text):
        return Unreadable(text)
    read: dict[str, Any] = json.loads(text)
    return read


def read_texts(text: str) -> list[str] | Unreadable:
    """Return the list of strings that a JSON text holds."""
    read = json.loads(text) if _is_within_limits(text) else None
    if not isinstance(read, list) or not all(isinstance(one, str) for one in read):
        return Unreadable(text)
    return read


def decode_without_limits(value: Any) -> Any:
    """Return an unreadable value as the driver delivered it, itself if even that is impossible."""
    if not isinstance(value, Unreadable):
        return value
    try:
        if _INSTANT.fullmatch(value.text):
            return datetime.fromisoformat(value.text).replace(tzinfo=UTC)
        return json.loads(value.text)
    except (ValueError, RecursionError):
        return value


def _is_within_limits(text: str) -> bool:
    bare = _STRING.sub("", text)
    if any(len(digits) > MOST_DIGITS for digits in _DIGITS.findall(bare)):
        return False
    level = 0
    for bracket in re.findall(r"[\[\]{}]", bare):
        level += 1 if bracket in "[{" else -1
        if level > MOST_LEVELS:
            return False
    return True


class _ReadAsText(TypeDecorator[Any]):
    """A column that is written as its own type and read as text, which `read` decodes."""

    cache_ok = True
    read: Callable[[str], Any]

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        read = type(self).read
        return lambda text: None if text is None else read(text)


class LenientInstant(_ReadAsText):
    """An instant with a time zone; read as a datetime in UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True
    read = staticmethod(read_instant)

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        # Text of JSON depends on no session's DateStyle, and in UTC on no session's zone.
        written = func.to_jsonb(func.timezone("UTC", column)).op("#>>")(literal_column("'{}'"))
        return type_coerce(written, self)


class LenientObject(_ReadAsText):
    """A JSON object; read as a dict."""

    impl = JSONB
    cache_ok = True
    read = staticmethod(read_object)

    def coerce_compared_value(self, op: Any, value: Any) -> TypeEngine[Any]:
        return self.impl_instance.coerce_compared_value(op, value)

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        return type_coerce(cast(column, Text), self)


class LenientTexts(_ReadAsText):
    """An array of strings; read as a list."""

    impl = ARRAY(Text)
    cache_ok = True
    read = staticmethod(read_texts)

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        return type_coerce(cast(func.to_jsonb(column), Text), self)
