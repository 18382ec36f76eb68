"""Parameters that several routes take, and the cursors that page through long answers."""

import base64
import binascii
import json
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Annotated, Any

from fastapi import Path, Query, Request
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, StringConstraints

from feature_repo.pseudonyms import PSEUDONYM_PATTERN
from serving.errors import UnusableError

#: A FHIR search names the beginning and the end of a span by the same parameter.
REPEATABLE = frozenset({"date"})

EXAMPLE_ID = "5f0c1d7e2a9b4c3d8e6f7a1b2c3d4e5f"

AnonymizedId = Annotated[
    str,
    Path(
        pattern=f"^{PSEUDONYM_PATTERN.pattern}$",
        description="The individual's pseudonym.",
        examples=[EXAMPLE_ID],
    ),
]
PageSize = Annotated[int, Query(ge=1, le=100, description="Most entries of one answer.")]
Cursor = Annotated[
    str | None,
    Query(max_length=256, description="`next_cursor` of the answer before; none for the first."),
]


def _lie_in_our_years(moment: datetime) -> datetime:
    # Far from it, a change of time zone leaves the calendar.
    if not 2000 <= moment.year < 2200:
        raise ValueError("must lie in the years 2000 to 2199")
    return moment


def _lie_in_our_time(moment: datetime) -> datetime:
    return in_utc(_lie_in_our_years(moment))


def place_in_zone(moment: datetime | None, zone: tzinfo) -> datetime | None:
    """Return a moment in UTC; one without a zone is a moment of `zone`."""
    if moment is None:
        return None
    return in_utc(moment if moment.tzinfo else moment.replace(tzinfo=zone))


def in_utc(moment: datetime) -> datetime:
    """Return the same instant; PostgreSQL reads no time zone 16 hours away, ISO 8601 writes 23."""
    return moment.astimezone(UTC)


Moment = Annotated[AwareDatetime, AfterValidator(_lie_in_our_time)]
#: With or without a zone; `place_in_zone` settles the latter.
DayOrMoment = Annotated[datetime, AfterValidator(_lie_in_our_years)]
IN_ZONE = "A date or time without a zone is one of MHRAS_TIMEZONE: 2026-01-01 is its midnight."
Since = Annotated[DayOrMoment | None, Query(description=f"Instants from this one on. {IN_ZONE}")]
Until = Annotated[DayOrMoment | None, Query(description=f"Instants before this one. {IN_ZONE}")]
Word = Annotated[str | None, Query(pattern=r"^[\x21-\x7e]{1,128}$")]


def _validate_printable(text: str) -> str:
    # PostgreSQL cannot hold NUL, and control characters forge lines of an export.
    if any(not sign.isprintable() and sign not in "\n\t" for sign in text):
        raise ValueError("must not hold control characters")
    return text


#: What a person writes down for other people.
FreeText = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=2000),
    AfterValidator(_validate_printable),
]


class Page(BaseModel):
    """One answer of a listing."""

    model_config = ConfigDict(frozen=True)

    next_cursor: str | None


def write_cursor(*position: Any) -> str:
    """Return the opaque form of where a page ended."""
    settled = [part.isoformat() if isinstance(part, datetime) else part for part in position]
    text = json.dumps(settled, separators=(",", ":"), default=str)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(cursor: str, *readers: Callable[[Any], Any]) -> Sequence[Any]:
    """Return the position behind a cursor, each part through its reader.

    Raises UnusableError for anything that write_cursor did not make.
    """
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        parts = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        if not isinstance(parts, list) or len(parts) != len(readers):
            raise ValueError("another number of parts")
        return [read(part) for read, part in zip(readers, parts, strict=True)]
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise UnusableError("the cursor is not valid") from None


def read_instant(part: Any) -> datetime:
    """Return an instant with a time zone; raises ValueError for any other text."""
    moment = datetime.fromisoformat(part)
    if moment.tzinfo is None:
        raise ValueError("no time zone")
    return _lie_in_our_time(moment)


def read_real(part: Any) -> float:
    """Return a finite number; raises ValueError for anything else."""
    if not isinstance(part, int | float) or isinstance(part, bool) or not math.isfinite(part):
        raise ValueError("no number")
    return float(part)


def read_number(part: Any) -> int:
    """Return a row number; raises ValueError for what no bigint column holds."""
    if not isinstance(part, int) or isinstance(part, bool) or not 0 <= part < 2**63:
        raise ValueError("no row number")
    return part


async def refuse_repeated_parameters(request: Request) -> None:
    """Raise UnusableError for a query parameter given twice, of which one value would be lost."""
    # A coroutine, because every request passes here and a function would be given a thread.
    names = [name for name, _ in request.query_params.multi_items() if name not in REPEATABLE]
    earlier: set[str] = set()
    for position, name in enumerate(names, 1):
        if name in earlier:
            raise UnusableError(f"query parameter {position} repeats an earlier one")
        earlier.add(name)
