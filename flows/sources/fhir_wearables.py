"""Wearable readings in FHIR Observations.

LOINC has no code for RMSSD and none in use for sleep efficiency or wear time. 80404-7 is
SDNN, another measure of heart rate variability: it is taken only when the resource itself
says that the value is RMSSD, and otherwise ignored rather than passed off as one.
"""

import re
from datetime import timedelta
from typing import Any

from feature_repo.fhir_surveys import FINAL_STATUSES
from feature_repo.fhir_values import (
    MILLISECONDS_PER_UNIT,
    MINUTES_PER_UNIT,
    PER_DAY,
    PER_MINUTE,
    Context,
    RejectedResourceError,
    Resource,
    as_list,
    as_object,
    find_person,
    iterate_codings,
    read_instant,
    read_quantity,
    refuse_status,
    require_date,
    to_float,
)
from flows.sources.contract import DAY_SPAN, DAY_TOTAL

SDNN = "80404-7"

#: LOINC code to channel, units, and whether it is the device's total of the day.
CHANNELS: dict[str, tuple[str, dict[str, float], str]] = {
    "41950-7": ("steps", PER_DAY, DAY_TOTAL),
    "55423-8": ("steps", PER_DAY, DAY_SPAN),
    "101691-4": ("active_minutes", MINUTES_PER_UNIT, DAY_SPAN),
    "93832-4": ("sleep_minutes", MINUTES_PER_UNIT, DAY_SPAN),
    "40443-4": ("resting_heart_rate", PER_MINUTE, DAY_SPAN),
}

#: The longest day, the one on which summer time ends, and a second for how devices round.
LONGEST_DAY = timedelta(hours=25, seconds=1)

WORN = re.compile(r"watch|ring|band|wear|fitbit|garmin|oura|whoop|polar|withings", re.IGNORECASE)
PHONE = re.compile(r"phone|mobile|android|pixel|galaxy s", re.IGNORECASE)


def find_channel(resource: Resource, loincs: list[str]) -> str | None:
    """Return the LOINC code by which an Observation is a wearable reading, None if it is not."""
    channel_loinc = next((loinc for loinc in loincs if loinc in CHANNELS), None)
    return channel_loinc or (SDNN if _names_rmssd(resource) else None)


def map_wearable_observation(resource: Resource, loinc: str, context: Context) -> Resource:
    """Return part of a wearable day: one channel of the day on which the reading ended."""
    refuse_status(resource, *FINAL_STATUSES)
    channel, units, part = CHANNELS.get(loinc, ("hrv_rmssd", MILLISECONDS_PER_UNIT, DAY_SPAN))
    start, end = _read_span(resource)
    value = _read_plain_count(resource, channel)
    device = name_device(resource)
    return {
        "person_id": find_person(resource, context),
        "date": find_day(start, end),
        "part": part,
        "span_start": start if _has_time(start) else None,
        "span_end": end if _has_time(end) else None,
        "device": device,
        "device_rank": rank_device(device),
        channel: read_quantity(resource.get("valueQuantity"), units) if value is None else value,
    }


def find_day(start: Any, end: Any) -> str:
    """Return the day that a reading belongs to, as the wearer's clock writes it.

    A night belongs to the day of waking, so it is the day of the end; an end at midnight closes the
    day before. Rejects a span of more than a day: it says nothing of any single one. Raises
    RejectedResourceError for a reading over more than a day.
    """
    day = require_date("effectiveDateTime", end, start)
    ended = read_instant(end)
    began = read_instant(start) if ended else None
    if began is None or ended is None:
        return day[:10]
    if ended - began > LONGEST_DAY:
        raise RejectedResourceError("effectivePeriod: is longer than a day")
    if ended < began:
        raise RejectedResourceError("effectivePeriod: ends before it starts")
    if ended > began and ended.time().isoformat() == "00:00:00":
        return (ended.date() - timedelta(days=1)).isoformat()
    return day[:10]


def rank_device(device: str | None) -> int:
    """Return the priority of a device by its name: worn ones (0), unknown ones (1), phones (2)."""
    if device and WORN.search(device):
        return 0
    return 2 if device and PHONE.search(device) else 1


def name_device(resource: Resource) -> str | None:
    """Return what tells a resource's device from others: its name, type or reference."""
    device = as_object(resource.get("device"))
    local = str(device.get("reference", ""))
    for contained in map(as_object, as_list(resource.get("contained"))):
        if local and local == f"#{contained.get('id')}":
            names = [as_object(name).get("name") for name in as_list(contained.get("deviceName"))]
            texts = [
                *names,
                as_object(contained.get("type")).get("text"),
                contained.get("modelNumber"),
            ]
            return " ".join(str(text) for text in texts if text) or local
    identifier = as_object(device.get("identifier")).get("value")
    named = device.get("display") or device.get("reference") or identifier
    return str(named) if named else None


def _has_time(text: Any) -> bool:
    return "T" in str(text)


def _read_plain_count(resource: Resource, channel: str) -> float | None:
    value = resource.get("valueInteger")
    if channel != "steps" or isinstance(value, bool) or not isinstance(value, int):
        return None
    return to_float(value)


def _read_span(resource: Resource) -> tuple[Any, Any]:
    period = as_object(resource.get("effectivePeriod"))
    start = resource.get("effectiveDateTime") or resource.get("effectiveInstant")
    return start or period.get("start"), period.get("end")


def _names_rmssd(resource: Resource) -> bool:
    code = resource.get("code")
    texts = [
        as_object(code).get("text"),
        *(coding.get("display") for coding in iterate_codings(code)),
    ]
    return any("rmssd" in str(text).lower() for text in texts)
