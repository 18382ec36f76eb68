"""Wearable readings in FHIR Observations.

LOINC has no code for RMSSD and none in use for sleep efficiency or wear time. 80404-7 is
SDNN, another measure of heart rate variability: it is taken only when the resource itself
says that the value is RMSSD, and otherwise ignored rather than passed off as one.
"""

from typing import Any

from flows.sources.contract import DAY_SPAN, DAY_TOTAL
from flows.sources.fhir_surveys import FINAL_STATUSES
from flows.sources.fhir_values import (
    MILLISECONDS_PER_UNIT,
    MINUTES_PER_UNIT,
    PER_DAY,
    PER_MINUTE,
    Context,
    Resource,
    as_object,
    find_person,
    iterate_codings,
    read_quantity,
    refuse_status,
    require_date,
    to_float,
)

SDNN = "80404-7"

#: LOINC code to channel, units, and whether it is the device's total of the day.
CHANNELS: dict[str, tuple[str, dict[str, float], str]] = {
    "41950-7": ("steps", PER_DAY, DAY_TOTAL),
    "55423-8": ("steps", PER_DAY, DAY_SPAN),
    "101691-4": ("active_minutes", MINUTES_PER_UNIT, DAY_SPAN),
    "93832-4": ("sleep_minutes", MINUTES_PER_UNIT, DAY_SPAN),
    "40443-4": ("resting_heart_rate", PER_MINUTE, DAY_SPAN),
}


def find_channel(resource: Resource, loincs: list[str]) -> str | None:
    """Return the LOINC code by which an Observation is a wearable reading, None if it is not."""
    known = next((loinc for loinc in loincs if loinc in CHANNELS), None)
    return known or (SDNN if _names_rmssd(resource) else None)


def map_wearable_observation(resource: Resource, loinc: str, context: Context) -> Resource:
    """Return part of a wearable day: one channel of the day on which the reading ended."""
    refuse_status(resource, *FINAL_STATUSES)
    channel, units, part = CHANNELS.get(loinc, ("hrv_rmssd", MILLISECONDS_PER_UNIT, DAY_SPAN))
    start, end = _read_span(resource)
    value = _read_plain_count(resource, channel)
    return {
        "person_id": find_person(resource, context),
        # A night belongs to the day of waking; the day is the one on the wearer's clock.
        "date": require_date("effectiveDateTime", end, start)[:10],
        "part": part,
        "part_at": f"{start}/{end}",
        channel: read_quantity(resource.get("valueQuantity"), units) if value is None else value,
    }


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
    texts = [as_object(code).get("text"), *(one.get("display") for one in iterate_codings(code))]
    return any("rmssd" in str(text).lower() for text in texts)
