"""What the records of JSON and CSV exports hold, by the fields that they have.

Exports of one maker differ in their file names from year to year, hardly in their fields. What is
not said is not taken: Garmin does not say which statistic its nightly HRV is, Oura's lowest heart
rate is not a resting one, and SDNN is not RMSSD.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flows.sources.contract import DAY_SPAN, DAY_TOTAL
from flows.sources.wearable_exports.readings import Reading

Record = dict[str, Any]
Measure = Callable[[Record], float | None]


def take(name: str, factor: float = 1.0) -> Measure:
    """Return a measure that takes a field, in the unit that `factor` leads to."""
    return lambda record: _multiply(_number(record.get(name)), factor)


def add(*names: str, factor: float = 1.0) -> Measure:
    """Return a measure that adds fields up; those that are missing count for nothing."""

    def measure(record: Record) -> float | None:
        numbers = [_number(record.get(name)) for name in names]
        given = [value for value in numbers if value is not None]
        return sum(given) * factor if given else None

    return measure


def rate(name: str) -> Measure:
    """Return a measure of a rate, of which zero means that none was measured."""
    return lambda record: _number(record.get(name)) or None


def worn(name: str, factor: float = 1 / 60) -> Measure:
    """Return the minutes of a day that are left beside those not worn."""

    def measure(record: Record) -> float | None:
        unworn = _number(record.get(name))
        return None if unworn is None else max(0.0, 1440 - unworn * factor)

    return measure


def _number(value: Any) -> float | None:
    try:
        return None if value in (None, "") or isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None


def _multiply(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


SECONDS = 1 / 60


@dataclass(frozen=True)
class Shape:
    """Records with the fields `needs`; `day` names that of their day.

    `spans` names the fields of a record's start and end: such records of a day add up, as a
    night and a nap do. `only` are fields with the one value they must have if they are there.
    """

    device: str
    needs: frozenset[str]
    day: str
    channels: dict[str, Measure]
    spans: tuple[str, str] | None = None
    only: tuple[tuple[str, Any], ...] = ()

    def fits(self, record: Record) -> bool:
        """Return True for a record of this shape."""
        return self.needs <= record.keys()

    def read(self, record: Record, person: str, number: int) -> Iterator[Reading]:
        """Yield the readings of a record."""
        day = _read_day(record.get(self.day))
        wrong = any(record.get(name, value) != value for name, value in self.only)
        if day is None or wrong:
            return
        start, end = (record.get(name) for name in self.spans) if self.spans else (None, None)
        for channel, measure in self.channels.items():
            value = measure(record)
            if value is not None:
                yield Reading(
                    person=person,
                    day=day,
                    channel=channel,
                    value=value,
                    device=self.device,
                    name=f"{day} {start}",
                    row_number=number,
                    part=DAY_SPAN if start else DAY_TOTAL,
                    start=start,
                    end=end,
                )


def _read_day(value: Any) -> str | None:
    text = str(value or "")
    for pattern in ("%Y-%m-%d", "%m/%d/%y"):
        try:
            return datetime.strptime(text[: 10 if "-" in text else 8], pattern).date().isoformat()
        except ValueError:
            continue
    return None


SHAPES = (
    Shape(
        "garmin",
        frozenset(("calendarDate", "totalSteps")),
        "calendarDate",
        {
            "steps": take("totalSteps"),
            "active_minutes": add("moderateIntensityMinutes", "vigorousIntensityMinutes"),
            "resting_heart_rate": rate("restingHeartRate"),
        },
    ),
    Shape(
        "garmin",
        frozenset(("calendarDate", "deepSleepSeconds")),
        "calendarDate",
        {
            "sleep_minutes": add(
                "deepSleepSeconds", "lightSleepSeconds", "remSleepSeconds", factor=SECONDS
            )
        },
    ),
    Shape(
        "fitbit",
        frozenset(("dateOfSleep", "minutesAsleep", "startTime", "endTime")),
        "dateOfSleep",
        {"sleep_minutes": take("minutesAsleep")},
        spans=("startTime", "endTime"),
    ),
    Shape(
        "oura",
        frozenset(("day", "steps", "medium_activity_time")),
        "day",
        {
            "steps": take("steps"),
            "active_minutes": add("medium_activity_time", "high_activity_time", factor=SECONDS),
            "wear_minutes": worn("non_wear_time"),
        },
    ),
    Shape(
        "oura",
        frozenset(("day", "total_sleep_duration")),
        "day",
        {
            "sleep_minutes": take("total_sleep_duration", SECONDS),
            "sleep_efficiency": take("efficiency"),
            "hrv_rmssd": rate("average_hrv"),
        },
        only=(("type", "long_sleep"),),
    ),
    Shape(
        "oura",
        frozenset(("day", "steps", "mediumActivityTime")),
        "day",
        {
            "steps": take("steps"),
            "active_minutes": add("mediumActivityTime", "highActivityTime", factor=SECONDS),
            "wear_minutes": worn("nonWearTime"),
        },
    ),
    Shape(
        "oura",
        frozenset(("day", "totalSleepDuration")),
        "day",
        {
            "sleep_minutes": take("totalSleepDuration", SECONDS),
            "sleep_efficiency": take("efficiency"),
            "hrv_rmssd": rate("averageHrv"),
        },
        only=(("type", "long_sleep"),),
    ),
    Shape(
        "garmin",
        frozenset(("date", "steps", "moderateIntensityDuration")),
        "date",
        {
            "steps": take("steps"),
            "active_minutes": add(
                "moderateIntensityDuration", "vigorousIntensityDuration", factor=SECONDS
            ),
            "resting_heart_rate": rate("restingHeartRate"),
            "wear_minutes": take("duration", SECONDS),
        },
    ),
    Shape(
        "garmin",
        frozenset(("date", "deepSleepDuration")),
        "date",
        {
            "sleep_minutes": add(
                "deepSleepDuration", "lightSleepDuration", "remSleepDuration", factor=SECONDS
            ),
        },
    ),
    Shape(
        "fitbit",
        frozenset(("date", "restingHeartRate")),
        "date",
        {
            "resting_heart_rate": rate("restingHeartRate"),
        },
    ),
    Shape(
        "open-wearables",
        frozenset(("date", "source", "steps")),
        "date",
        {
            "steps": take("steps"),
            "active_minutes": take("active_duration_seconds", SECONDS),
        },
    ),
    Shape(
        "open-wearables",
        frozenset(("date", "source", "duration_seconds")),
        "date",
        {
            "sleep_minutes": take("duration_seconds", SECONDS),
            "sleep_efficiency": take("efficiency_percent"),
            "hrv_rmssd": rate("avg_hrv_rmssd_ms"),
        },
    ),
    Shape(
        "open-wearables",
        frozenset(("date", "source", "resting_heart_rate_bpm")),
        "date",
        {
            "resting_heart_rate": rate("resting_heart_rate_bpm"),
        },
    ),
)


def find_shape(record: Record) -> Shape | None:
    """Return the first shape that fits a record, None where none does."""
    return next((shape for shape in SHAPES if shape.fits(record)), None)
