"""Reading the trail: filtered pages, and the whole of it as a stream."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import BeforeValidator
from sqlalchemy import ColumnElement, Engine, select
from sqlalchemy.orm import Session

from serving.audit.chain import ROW_COLUMNS, list_unreadable
from serving.audit.trail import AUDIT_ACCESS, Event, EventTrail
from serving.database.lenient_types import Unreadable
from serving.database.tables import AuditRow, AuditSeal

ROWS_PER_FETCH = 1_000
#: Text as it is, without white space; only an instant needs a form.
COMPACT: dict[str, Any] = {
    "ensure_ascii": False,
    "separators": (",", ":"),
    "default": datetime.isoformat,
}


def blank_unreadable(value: Any) -> Any:
    """Return a value of a row, None for one that Python cannot hold."""
    return None if isinstance(value, Unreadable) else value


#: Fields of what is shown of a row; None: the value cannot be read.
ReadableInstant = Annotated[datetime | None, BeforeValidator(blank_unreadable)]
ReadableObject = Annotated[dict[str, Any] | None, BeforeValidator(blank_unreadable)]
ReadableTexts = Annotated[list[str] | None, BeforeValidator(blank_unreadable)]


@dataclass(frozen=True)
class TrailFilter:
    """Filter of a search for audit rows; None: any."""

    event_type: str | None = None
    action: str | None = None
    result: str | None = None
    user_id: str | None = None
    anonymized_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def make_conditions(self) -> Iterator[ColumnElement[bool]]:
        for name in ("event_type", "action", "result", "user_id", "anonymized_id"):
            value = getattr(self, name)
            if value is not None:
                yield getattr(AuditRow, name) == value
        if self.since is not None:
            yield AuditRow.created_at >= self.since
        if self.until is not None:
            yield AuditRow.created_at < self.until


def list_rows(
    session: Session, wanted: TrailFilter, before: int | None, limit: int
) -> Sequence[AuditRow]:
    """Return up to `limit` rows, latest first, before an id."""
    statement = select(AuditRow).where(*wanted.make_conditions())
    if before is not None:
        statement = statement.where(AuditRow.id < before)
    return session.scalars(statement.order_by(AuditRow.id.desc()).limit(limit)).all()


def view_rows(
    session: Session, trail: EventTrail, wanted: TrailFilter, before: int | None, limit: int
) -> tuple[list[AuditRow], bool]:
    """Return a page of rows, latest first, and whether there is more; the viewing is a row too."""
    rows = list(list_rows(session, wanted, before, limit + 1))
    record_access(trail, "list_audit_rows", wanted.anonymized_id)
    return rows[:limit], len(rows) > limit


def record_access(trail: EventTrail, action: str, anonymized_id: str | None = None) -> None:
    trail.record(Event(AUDIT_ACCESS, action, anonymized_id, ["audit"]))


def stream_lines(engine: Engine, wanted: TrailFilter) -> Iterator[bytes]:
    """Yield the rows as NDJSON, oldest first, each with its link of the chain.

    The last line counts them: an export without it was cut off. Of a value that cannot be read
    the line has PostgreSQL's text under `unreadable`, and null in its place.
    """
    statement = (
        select(AuditRow.__table__, AuditSeal.position, AuditSeal.previous_hash, AuditSeal.row_hash)
        .select_from(AuditRow)
        .outerjoin(AuditSeal, AuditSeal.audit_id == AuditRow.id)
        .where(*wanted.make_conditions())
        .order_by(AuditRow.id)
        .execution_options(yield_per=ROWS_PER_FETCH)
    )
    count = 0
    with engine.connect() as connection:
        for row in connection.execute(statement).mappings():
            count += 1
            yield write_line(describe_row(row))
    yield write_line({"end": True, "rows": count})


def write_line(values: dict[str, Any]) -> bytes:
    """Return a line of NDJSON; integers may have any number of digits."""
    return json.dumps(values, **COMPACT).encode() + b"\n"


def describe_row(row: Any) -> dict[str, Any]:
    described = {name: blank_unreadable(row[name]) for name in ROW_COLUMNS}
    if unreadable := list_unreadable(row):
        described["unreadable"] = {name: row[name].text for name in unreadable}
    sealed = row["position"] is not None
    return described | {
        "position": row["position"],
        "previous_hash": row["previous_hash"].hex() if sealed else None,
        "row_hash": row["row_hash"].hex() if sealed else None,
    }
