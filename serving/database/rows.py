"""Rows of tables as plain values, for exports and FHIR resources."""

from datetime import datetime
from typing import Any
from uuid import UUID

from serving.database.tables import Base


def describe_row(row: Base) -> dict[str, Any]:
    """Return a row's columns as JSON holds them: instants (ISO 8601) and UUIDs as text."""
    return {name: _write(getattr(row, name)) for name in row.__table__.columns.keys()}  # noqa: SIM118


def _write(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value
