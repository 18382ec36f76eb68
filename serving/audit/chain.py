"""The hash chain over the audit trail: pure functions, no database.

Link n is SHA-256 over link n-1 and the canonical form of row n, so no row can be changed,
removed, reordered or slipped in without every later link being different.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from serving.database.lenient_types import Unreadable, decode_without_limits

#: What the first link stands on.
GENESIS = bytes(32)
#: Names the form of the hashed bytes; a change of form gets another name.
FORM = b"mhras-audit-1\n"
#: The form of rows with a value that Python cannot hold: it is hashed as PostgreSQL's text.
TEXT_FORM = b"mhras-audit-text-1\n"

#: Every column of a row is hashed, in this order.
COLUMNS = (
    *("id", "created_at", "event_type", "user_id", "user_role", "anonymized_id"),
    *("data_types", "action", "result", "request_id", "details"),
)

#: Columns younger than the form: hashed where they hold a value.
LATER_COLUMNS = ("network",)
ROW_COLUMNS = (*COLUMNS, *LATER_COLUMNS)

#: One row by column, as the database delivers it or as a test makes it.
Row = Mapping[Any, Any]


def hash_row(previous_hash: bytes, row: Row) -> bytes:
    """Return the link of a row that follows the link `previous_hash`.

    The row alone decides which form is hashed, so no writer and no link can choose it.
    """
    form = TEXT_FORM if list_unreadable(row) else FORM
    return hashlib.sha256(form + previous_hash + canonicalise_row(row)).digest()


def is_link_of(link: bytes, previous_hash: bytes, row: Row) -> bool:
    """Return True if a link is the one of a row that follows the link `previous_hash`."""
    if link == hash_row(previous_hash, row):
        return True
    # Earlier sealers had the wider limits of driver and interpreter; their links still count.
    before = {name: decode_without_limits(row.get(name)) for name in ROW_COLUMNS}
    return not list_unreadable(before) and link == hash_row(previous_hash, before)


def list_unreadable(row: Row) -> list[str]:
    """Return the columns of a row whose values Python cannot hold."""
    return [name for name in ROW_COLUMNS if isinstance(row.get(name), Unreadable)]


def canonicalise_row(row: Row) -> bytes:
    """Return the one byte sequence of a row: a JSON array of its columns in order."""
    values = [_settle(row[name]) for name in COLUMNS]
    # Earlier rows keep their hash: they hold no value there.
    values += [{name: row[name]} for name in LATER_COLUMNS if row.get(name) is not None]
    # The names keep a value that is unreadable apart from one that is the same text.
    if unreadable := list_unreadable(row):
        values.append(unreadable)
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _settle(value: Any) -> Any:
    if isinstance(value, Unreadable):
        return value.text
    # The instant in UTC: sessions read it in their own time zones.
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value
