"""The hash chain over the audit trail: pure functions, no database.

Link n is SHA-256 over link n-1 and the canonical form of row n, so no row can be changed,
removed, reordered or slipped in without every later link being different.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

#: What the first link stands on.
GENESIS = bytes(32)
#: Names the form of the hashed bytes; a change of form gets another name.
FORM = b"mhras-audit-1\n"

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
    """Return the link of a row that follows the link `previous_hash`."""
    return hashlib.sha256(FORM + previous_hash + canonicalise_row(row)).digest()


def canonicalise_row(row: Row) -> bytes:
    """Return the one byte sequence of a row: a JSON array of its columns in order."""
    values = [_settle(row[name]) for name in COLUMNS]
    # Earlier rows keep their hash: they hold no value there.
    values += [{name: row[name]} for name in LATER_COLUMNS if row.get(name) is not None]
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _settle(value: Any) -> Any:
    # The instant in UTC: sessions read it in their own time zones.
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value
