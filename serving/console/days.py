"""Dates and times that people write without a time zone: they are those of MHRAS_TIMEZONE."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo


def read_local_instant(text: str, zone: ZoneInfo) -> datetime | None:
    """Return the instant of "2026-11-30 09:30" or "2026-11-30" in a zone; None for other text."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)
