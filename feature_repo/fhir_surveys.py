"""Questionnaires in FHIR: a QuestionnaireResponse, or Observations item by item.

An item is known by the LOINC code in its linkId, definition or Questionnaire. Items that only a
short form has (PHQ-2 of PHQ-9) are that short form. Nothing is picked: two answers to one item,
or a total that is not the sum, reject the record.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from feature_repo.fhir_answers import Points, read_answer, read_number
from feature_repo.fhir_values import (
    Context,
    Form,
    IgnoredResourceError,
    RejectedResourceError,
    Resource,
    as_list,
    as_object,
    find_loincs,
    find_person,
    refuse_status,
    require_date,
)
from feature_repo.instruments import INSTRUMENTS, ITEM_COLUMNS, LOINC_SYSTEM, Instrument

#: Item codes lead to the longest instrument that has them: a short form shares its items.
ITEMS: dict[str, tuple[str, int]] = {
    loinc: (instrument.name, number)
    for instrument in INSTRUMENTS.values()
    if instrument.short_form_of is None
    for number, loinc in enumerate(instrument.item_loincs, 1)
}
PANELS = {
    code: instrument.name
    for instrument in INSTRUMENTS.values()
    for _, code in instrument.panel_codes
}
TOTALS = {
    code: instrument.name
    for instrument in INSTRUMENTS.values()
    for _, code in instrument.total_codes
}

#: LOINC codes of which each makes an Observation part of a survey.
SURVEY_LOINCS = frozenset((*ITEMS, *PANELS, *TOTALS))

#: Items that name no panel belong to one questionnaire when they lie within it of each other:
#: apps send items one by one, and people take minutes to fill a form in.
JOIN_WINDOW = timedelta(minutes=10)

#: Kind of `part` of a row that holds an answer, a total or a panel of a survey.
SURVEY_ITEM = "item"

LOINC = re.compile(r"\d{4,6}-\d")
#: Signs of one of these questionnaires in a response without a recognisable item.
TELLTALE = re.compile(r"PHQ-?[0-9]|GAD-?[0-9]|\bLA65(?:68-5|69-3|70-1|71-9)\b", re.IGNORECASE)

COMPLETE_STATUSES = ("completed", "amended")
FINAL_STATUSES = ("final", "amended", "corrected", "appended")


@dataclass
class _Answered:
    """What a response holds of one family of instruments (PHQ-9 with its short forms)."""

    answers: dict[int, list[Points]] = field(default_factory=dict)
    panels: set[str] = field(default_factory=set)
    totals: dict[str, set[float]] = field(default_factory=dict)


def map_questionnaire_response(resource: Resource, context: Context) -> list[Resource]:
    """Return a survey row per instrument answered in a QuestionnaireResponse.

    Raises IgnoredResourceError where it holds no item of an instrument, and RejectedResourceError
    where it names one that cannot be read.
    """
    refuse_status(resource, *COMPLETE_STATUSES)
    families = _collect_answers(resource, _find_form(resource, context))
    if not families:
        _refuse_telltale(resource)
        raise IgnoredResourceError("QuestionnaireResponse without an item of an instrument")
    person = find_person(resource, context)
    answered_at = require_date("authored", resource.get("authored"))
    whole = {"person_id": person, "answered_at": answered_at, "named": True}
    return [whole | _make_row(family, answered) for family, answered in families.items()]


def _refuse_telltale(resource: Resource) -> None:
    if TELLTALE.search(str([resource.get("questionnaire"), resource.get("item")])):
        raise RejectedResourceError(
            "item.linkId: answers of PHQ or GAD, but no linkId names a LOINC item; "
            "put the Questionnaire with its item.code into the drop"
        )


def _make_row(family: str, answered: _Answered) -> Resource:
    given = {number: _agree(number, points) for number, points in answered.answers.items()}
    instrument = INSTRUMENTS[name_form(family, answered.panels, set(given))]
    stated = answered.totals.get(instrument.name, set())
    if len(stated) > 1:
        raise RejectedResourceError(f"{instrument.name} total: is stated twice, differently")
    total = next(iter(stated), None)
    _check_total(instrument, given, total)
    items = {ITEM_COLUMNS[number - 1]: points for number, points in given.items()}
    return {"instrument": instrument.name, "total": total} | items


def _agree(number: int, points: list[Points]) -> Points:
    """Return the one answer to an item; a blank beside an answer is ignored."""
    given = {value for value in points if value is not None}
    if len(given) > 1:
        raise RejectedResourceError(f"item_{number}: has two different answers in one response")
    return next(iter(given), None)


def name_form(family: str, panels: set[str], asked: set[int]) -> str:
    """Return which of a family's instruments was used, by its panels and its items.

    `asked` holds the numbers of all items that were there, blank ones too: a longer form whose
    items were skipped is not a short one.
    """
    if family in panels:
        return family
    shorter = [
        instrument for instrument in INSTRUMENTS.values() if instrument.short_form_of == family
    ]
    for instrument in shorter:
        holds = asked <= set(range(1, instrument.item_count + 1))
        is_named = instrument.name in panels
        if holds and (
            is_named or (instrument.is_gate and len(asked) == instrument.item_count and not panels)
        ):
            return instrument.name
    return family


def name_family(instrument: str) -> str:
    """Return the longest instrument that has the items of this one."""
    return INSTRUMENTS[instrument].short_form_of or instrument


def _find_form(resource: Resource, context: Context) -> Form:
    """Return the response's Questionnaire: of the drop, contained, or by its LOINC address."""
    canonical = str(resource.get("questionnaire", "")).partition("|")[0]
    for contained in map(as_object, as_list(resource.get("contained"))):
        if contained.get("resourceType") == "Questionnaire" and canonical in (
            "",
            f"#{contained.get('id')}",
        ):
            return read_form(contained)
    form = context.forms.get(canonical) or context.forms.get(canonical.rsplit("/", 1)[-1])
    if form:
        return form
    named = [PANELS[code] for code in LOINC.findall(canonical) if code in PANELS]
    return Form(named[0] if named else None, {})


def read_form(resource: Resource) -> Form:
    """Return the items of a Questionnaire: by their code, else by their number.

    Numbers count only where the Questionnaire's own code names the instrument and its items are
    numbered through, as WHO-5's are, which have no codes of their own.
    """
    codings = [as_object(coding) for coding in as_list(resource.get("code"))]
    named = next(
        (PANELS[str(c.get("code"))] for c in codings if str(c.get("code")) in PANELS), None
    )
    coded: dict[str, tuple[str, int]] = {}
    items = list(_walk_items(resource))
    asked = [item for item in items if item.get("type") not in ("group", "display")]
    for item in asked:
        codes = find_loincs({"coding": item.get("code")})
        item_code = next((ITEMS[code] for code in codes if code in ITEMS), None)
        if item_code:
            coded[str(item.get("linkId"))] = item_code
    if named and not coded:
        coded = _number_items(INSTRUMENTS[named], [str(item.get("linkId")) for item in asked])
    return Form(named, coded)


def _number_items(instrument: Instrument, link_ids: list[str]) -> dict[str, tuple[str, int]]:
    numbers = [re.search(r"(\d+)$", link_id) for link_id in link_ids[: instrument.item_count]]
    stated = [int(match[1]) for match in numbers if match]
    if stated != list(range(1, instrument.item_count + 1)):
        return {}
    family = name_family(instrument.name)
    return {link_id: (family, number) for link_id, number in zip(link_ids, stated, strict=False)}


def _collect_answers(resource: Resource, form: Form) -> dict[str, _Answered]:
    families: dict[str, _Answered] = {}
    for item, panels in _walk_with_panels(resource, {form.instrument} - {None}):
        code = _find_code(item, form)
        nodes = [as_object(answer) for answer in as_list(item.get("answer"))]
        if isinstance(code, tuple):
            name, number = code
            family = families.setdefault(name, _Answered())
            family.panels |= {panel for panel in panels if panel and name_family(panel) == name}
            points = [read_answer(INSTRUMENTS[name], number, node) for node in nodes]
            family.answers.setdefault(number, []).extend(points or [None])
        elif code in TOTALS:
            totals = families.setdefault(name_family(TOTALS[code]), _Answered()).totals
            stated = [read_number(node) for node in nodes]
            totals.setdefault(TOTALS[code], set()).update(n for n in stated if n is not None)
    return {
        name: answered
        for name, answered in families.items()
        if answered.answers or any(answered.totals.values())
    }


def _find_code(item: Resource, form: Form) -> tuple[str, int] | str:
    """Return (family, number) of an item, or the code of a total, "" if it is neither.

    Of a path of LOINC codes, as in `/44249-1/44250-9`, the last is the item's own.
    """
    item_code = form.items.get(str(item.get("linkId")))
    if item_code:
        return item_code
    for element in ("linkId", "definition"):
        codes = LOINC.findall(str(item.get(element, "")))
        if codes:
            return ITEMS.get(codes[-1], codes[-1])
    return ""


def _walk_with_panels(node: Resource, panels: set[Any]) -> Iterator[tuple[Resource, set[Any]]]:
    """Yield every item, also those below an answer, with the panels that it stands in."""
    for item in as_list(node.get("item")):
        if isinstance(item, dict):
            path = LOINC.findall(f"{item.get('linkId', '')} {item.get('definition', '')}")
            within = panels | {PANELS[code] for code in path if code in PANELS}
            yield item, within
            for inner in (item, *map(as_object, as_list(item.get("answer")))):
                yield from _walk_with_panels(inner, within)


def _walk_items(node: Resource) -> Iterator[Resource]:
    for item in as_list(node.get("item")):
        if isinstance(item, dict):
            yield item
            yield from _walk_items(item)


def _check_total(instrument: Instrument, given: dict[int, Points], stated: float | None) -> None:
    """Reject a survey whose own total is not the sum of its items: one of them is wrong."""
    scores = [points for points in given.values() if points is not None]
    complete = instrument.item_count and len(scores) == instrument.item_count
    if stated is not None and complete and sum(scores) != stated:
        raise RejectedResourceError(
            f"{instrument.name} total: {stated:g} is stated, the items add to {sum(scores):g}"
        )


def map_survey_observation(resource: Resource, context: Context) -> Resource:
    """Return part of a survey row: an item, a total, or a panel with what its components answer."""
    refuse_status(resource, *FINAL_STATUSES)
    loincs = find_loincs(resource.get("code"))
    panel = next((PANELS[code] for code in loincs if code in PANELS), None)
    parts = [resource, *map(as_object, as_list(resource.get("component")))]
    instrument, values = _read_parts(parts, panel)
    return {
        "person_id": find_person(resource, context),
        "instrument": instrument,
        "answered_at": require_date("effectiveDateTime", *_list_times(resource)),
        "part": SURVEY_ITEM,
        "named": panel is not None or values["total"] is not None,
        "link": _find_link(resource, context),
        "members": _list_references(resource.get("hasMember"), context),
    } | values


def _read_parts(parts: list[Resource], panel: str | None) -> tuple[str, Resource]:
    answers: dict[int, list[Points]] = {}
    totals: set[float] = set()
    instrument = panel
    for part in parts:
        for code in find_loincs(part.get("code")):
            if code in ITEMS:
                family, number = ITEMS[code]
                instrument = instrument or family
                answers.setdefault(number, []).append(
                    read_answer(INSTRUMENTS[family], number, part)
                )
            elif code in TOTALS or code == _panel_code(panel):
                stated = read_number(part)
                instrument = instrument or TOTALS[code]
                totals |= set() if stated is None else {stated}
    if len(totals) > 1:
        raise RejectedResourceError(f"{instrument} total: is stated twice, differently")
    given = {number: _agree(number, points) for number, points in answers.items()}
    total = next(iter(totals), None)
    _check_total(INSTRUMENTS[str(instrument)], given, total)
    items = {ITEM_COLUMNS[number - 1]: points for number, points in given.items()}
    return str(instrument), items | {"total": total}


def _panel_code(panel: str | None) -> str | None:
    codes = INSTRUMENTS[panel].panel_codes if panel else ()
    return next((code for system, code in codes if system == LOINC_SYSTEM), None)


def is_survey_observation(loincs: list[str]) -> bool:
    return not SURVEY_LOINCS.isdisjoint(loincs)


def _find_link(resource: Resource, context: Context) -> str | None:
    """Return the response or panel that an Observation was derived from."""
    names = _list_references(resource.get("derivedFrom"), context) or []
    linked = [name for name in names if name.startswith(("QuestionnaireResponse/", "Observation/"))]
    return next(iter(sorted(linked, reverse=True)), None)


def _list_references(element: Any, context: Context) -> list[str] | None:
    references = [as_object(entry).get("reference") for entry in as_list(element)]
    return [
        context.resolve(reference) for reference in references if isinstance(reference, str)
    ] or None


def _list_times(resource: Resource) -> tuple[Any, ...]:
    period = as_object(resource.get("effectivePeriod"))
    return resource.get("effectiveDateTime"), resource.get("effectiveInstant"), period.get("start")
