"""Apple Health's `export.xml`, read as a stream: it has gigabytes and millions of records.

There is no RMSSD in it: HeartRateVariabilitySDNN is another measure. Time in bed is not sleep. A
night belongs to the day of waking, also the part of it before midnight.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import IO
from xml.etree import ElementTree

from flows.sources.contract import DAY_SPAN
from flows.sources.fhir_wearables import rank_device
from flows.sources.wearable_exports.readings import Reading

QUANTITIES = {
    "HKQuantityTypeIdentifierStepCount": "steps",
    "HKQuantityTypeIdentifierAppleExerciseTime": "active_minutes",
    "HKQuantityTypeIdentifierRestingHeartRate": "resting_heart_rate",
}
SLEEP = "HKCategoryTypeIdentifierSleepAnalysis"
ASLEEP = "HKCategoryValueSleepAnalysisAsleep"
#: Sleep that begins later in the day belongs to the night before the next one.
EVENING = 18


def read_apple(
    stream: IO[bytes], person: str, ignored: Counter[str]
) -> Iterator[tuple[int, Reading | None]]:
    """Yield (number, reading) of every Record, None for one that no channel is made of."""
    number = 0
    root = None
    for event, element in ElementTree.iterparse(stream, events=("start", "end")):
        if root is None:
            root = element
        if event == "end" and element.tag == "Record":
            number += 1
            reading = _read_record(element.attrib, person, number)
            if reading is None:
                ignored[_name_kind(element.attrib)] += 1
            yield number, reading
            root.clear()


def _name_kind(record: dict[str, str]) -> str:
    kind = record.get("type", "")
    safe_kind = kind if kind.isascii() and kind.isalnum() and len(kind) < 80 else "unknown"
    return f"Apple Health {safe_kind.removeprefix('HKQuantityTypeIdentifier')}"


def _read_record(record: dict[str, str], person: str, number: int) -> Reading | None:
    try:
        start, end = (_read_time(record[name]) for name in ("startDate", "endDate"))
        channel, value = _measure(record, start, end)
    except (KeyError, ValueError):
        return None
    device = f"{record.get('sourceName', '')} {record.get('device', '')}".strip()
    return Reading(
        person=person,
        day=_find_day(channel, start, end),
        channel=channel,
        value=value,
        device=f"apple {record.get('sourceName', '')}",
        device_rank=rank_device(device),
        name=f"{record['startDate']} {record['endDate']} {record.get('value')}",
        row_number=number,
        part=DAY_SPAN,
        start=start.isoformat(),
        end=end.isoformat(),
    )


def _measure(record: dict[str, str], start: datetime, end: datetime) -> tuple[str, float]:
    kind = record["type"]
    if kind == SLEEP and record["value"].startswith(ASLEEP):
        return "sleep_minutes", (end - start) / timedelta(minutes=1)
    return QUANTITIES[kind], float(record["value"])


def _read_time(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S %z")


def _find_day(channel: str, start: datetime, end: datetime) -> str:
    if channel == "sleep_minutes" and start.hour >= EVENING:
        return (start.date() + timedelta(days=1)).isoformat()
    ends_at_midnight = end > start and (end.hour, end.minute, end.second) == (0, 0, 0)
    return (end.date() - timedelta(days=int(ends_at_midnight))).isoformat()
