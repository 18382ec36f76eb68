"""PHQ-9 and GAD-7 in FHIR: a QuestionnaireResponse, or Observations item by item."""

import re
from collections.abc import Iterator
from typing import Any

from feature_repo.instruments import ANSWER_POINTS, INSTRUMENTS, LOINC_SYSTEM, Instrument
from flows.sources.contract import ITEM_COLUMNS, SURVEY_ITEM
from flows.sources.fhir_values import (
    Context,
    IgnoredResourceError,
    RejectedResourceError,
    Resource,
    as_list,
    as_object,
    find_loincs,
    find_person,
    refuse_status,
    require_date,
    to_float,
)

ITEMS = {
    loinc: (instrument.name, f"item_{number}")
    for instrument in INSTRUMENTS.values()
    for number, loinc in enumerate(instrument.item_loincs, 1)
}
PANELS = {instrument.panel_loinc: instrument.name for instrument in INSTRUMENTS.values()}
TOTALS = {instrument.total_loinc: instrument for instrument in INSTRUMENTS.values()}

LOINC = re.compile(r"\d{4,6}-\d")
ORDINAL_EXTENSIONS = (
    "http://hl7.org/fhir/StructureDefinition/ordinalValue",
    "http://hl7.org/fhir/StructureDefinition/itemWeight",
    "http://hl7.org/fhir/StructureDefinition/iso21090-CO-value",
)

COMPLETE_STATUSES = ("completed", "amended")
FINAL_STATUSES = ("final", "amended", "corrected")


def map_questionnaire_response(resource: Resource, context: Context) -> list[Resource]:
    """Return a survey row per instrument answered in a QuestionnaireResponse."""
    refuse_status(resource, *COMPLETE_STATUSES)
    answers, totals = _collect_answers(resource)
    if not answers:
        raise IgnoredResourceError("QuestionnaireResponse without an item of PHQ-9 or GAD-7")
    person = find_person(resource, context)
    answered_at = require_date("authored", resource.get("authored"))
    for name, items in answers.items():
        _check_total(INSTRUMENTS[name], items, totals.get(name))
    return [
        {"person_id": person, "instrument": name, "answered_at": answered_at} | items
        for name, items in answers.items()
    ]


def map_survey_observation(resource: Resource, context: Context) -> Resource:
    """Return part of a survey row: one item, or a panel with what its components answer."""
    refuse_status(resource, *FINAL_STATUSES)
    found = dict(_read_observation_items(resource))
    instrument = _name_instrument(resource)
    return {
        "person_id": find_person(resource, context),
        "instrument": instrument,
        "answered_at": require_date("effectiveDateTime", *_list_times(resource)),
        "part": SURVEY_ITEM,
    } | found


def is_survey_observation(loincs: list[str]) -> bool:
    return any(loinc in ITEMS or loinc in PANELS for loinc in loincs)


def _name_instrument(resource: Resource) -> str:
    loincs = find_loincs(resource.get("code"))
    return next(
        PANELS.get(code) or ITEMS[code][0] for code in loincs if code in {**PANELS, **ITEMS}
    )


def _list_times(resource: Resource) -> tuple[Any, ...]:
    period = as_object(resource.get("effectivePeriod"))
    return resource.get("effectiveDateTime"), resource.get("effectiveInstant"), period.get("start")


def _read_observation_items(resource: Resource) -> Iterator[tuple[str, float | None]]:
    for part in [resource, *as_list(resource.get("component"))]:
        for loinc in find_loincs(as_object(part).get("code")):
            if loinc in ITEMS:
                column = ITEMS[loinc][1]
                yield column, _read_answer(column, part)


def _collect_answers(
    resource: Resource,
) -> tuple[dict[str, dict[str, float | None]], dict[str, float | None]]:
    """Return item answers and stated totals by instrument."""
    answers: dict[str, dict[str, float | None]] = {}
    totals: dict[str, float | None] = {}
    for item in _walk_items(resource):
        loinc = _find_item_loinc(item)
        given = as_object(next(iter(as_list(item.get("answer"))), {}))
        if loinc in ITEMS:
            name, column = ITEMS[loinc]
            answers.setdefault(name, {})[column] = _read_answer(column, given)
        elif loinc in TOTALS:
            totals[TOTALS[loinc].name] = _read_number(given)
    return answers, totals


def _walk_items(node: Resource) -> Iterator[Resource]:
    for item in as_list(node.get("item")):
        if isinstance(item, dict):
            yield item
            yield from _walk_items(item)


def _find_item_loinc(item: Resource) -> str:
    """Return the LOINC code in an item's linkId or definition, "" if there is none."""
    for element in ("linkId", "definition"):
        match = LOINC.search(str(item.get(element, "")))
        if match:
            return match[0]
    return ""


def _read_answer(column: str, node: Resource) -> float | None:
    """Return an answer as a number, None when the item was not answered.

    Whether the number is 0 to 3 is for the checks that all rows meet.
    """
    number = _read_number(node)
    if number is not None:
        return number
    coding = node.get("valueCoding") or as_object(node.get("valueCodeableConcept")).get("coding")
    codings = [one for one in as_list(coding) if isinstance(one, dict)]
    points = [_read_points(one) for one in codings]
    known = next((point for point in points if point is not None), None)
    if known is None and any(key.startswith("value") for key in node):
        raise RejectedResourceError(
            f"{column}: is neither a number nor one of the answers {', '.join(ANSWER_POINTS)}"
        )
    return known


def _read_number(node: Resource) -> float | None:
    quantity = as_object(node.get("valueQuantity")).get("value")
    for value in (node.get("valueInteger"), node.get("valueDecimal"), quantity):
        if isinstance(value, int | float) and not isinstance(value, bool):
            return to_float(value)
    return None


def _read_points(coding: Resource) -> float | None:
    for extension in as_list(coding.get("extension")):
        if as_object(extension).get("url") in ORDINAL_EXTENSIONS:
            return _read_number(extension)
    if coding.get("system") in (LOINC_SYSTEM, None):
        return ANSWER_POINTS.get(str(coding.get("code")))
    return None


def _check_total(
    instrument: Instrument, items: dict[str, float | None], stated: float | None
) -> None:
    """Reject a survey whose own total is not the sum of its items: one of them is wrong."""
    given = [items.get(column) for column in ITEM_COLUMNS[: instrument.item_count]]
    scores = [answer for answer in given if answer is not None]
    if stated is not None and len(scores) == instrument.item_count and sum(scores) != stated:
        raise RejectedResourceError(
            f"{instrument.name} total: {stated:g} is stated, the items add to {sum(scores):g}"
        )
