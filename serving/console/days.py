"""Dates and times that people write without a time zone: they are those of MHRAS_TIMEZONE."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo


def read_local_instant(text: str, zone: ZoneInfo) -> datetime | None:
    """Return the instant of "2026-11-30 09:30" or "2026-11-30" in a zone; None for other text."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)


#: The month that the last quarter of a year begins with.
LAST_QUARTER = 10


@dataclass(frozen=True)
class Days:
    """A period by its first and last day, both included, in a time zone."""

    first: date
    last: date

    def to_instants(self, zone: ZoneInfo) -> tuple[datetime, datetime]:
        """Return the first instant of the period and the first one after it."""
        return begin_day(self.first, zone), begin_day(self.last + timedelta(days=1), zone)


def begin_day(day: date, zone: ZoneInfo) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


def find_quarter(day: date) -> Days:
    """Return the quarter of the year that holds a day."""
    month = 3 * ((day.month - 1) // 3) + 1
    begin = date(day.year, month, 1)
    after = date(day.year + (month == LAST_QUARTER), (month + 3) % 12, 1)
    return Days(begin, after - timedelta(days=1))


def list_quarters(today: date, count: int = 5) -> list[Days]:
    """Return the quarter of today and those before it, newest first."""
    quarters = [find_quarter(today)]
    while len(quarters) < count:
        quarters.append(find_quarter(quarters[-1].first - timedelta(days=1)))
    return quarters


def read_day(text: str | None) -> date | None:
    """Return the day of "2026-11-30"; None for other text, and for years out of our time."""
    try:
        day = date.fromisoformat((text or "").strip())
    except ValueError:
        return None
    return day if 2000 <= day.year < 2200 else None
