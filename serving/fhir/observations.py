"""The answers behind a prediction as Observations: US Core's screening assessment profile.

Source: US Core Observation Screening Assessment Profile; LOINC codes of the instruments' registry.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from feature_repo.answer_features import GAD7_ANSWERS, PHQ9_ANSWERS, REPORTED_PHQ9_TOTAL
from feature_repo.instruments import GAD7, LOINC_SYSTEM, PHQ9, Instrument
from serving.fhir.elements import Resource, make_code, write_instant

PROFILE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-observation-screening-assessment"
CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
#: Instruments of a screening, each with the names of its items in the request's inputs.
SENT = ((PHQ9, PHQ9_ANSWERS), (GAD7, GAD7_ANSWERS))


def make_observations(prediction: Mapping[str, Any], subject: Resource) -> list[Resource]:
    """Return an Observation of each instrument that was answered in the request."""
    sent = prediction["inputs"].get("request", {})
    observations = [
        make_observation(instrument, read_answers(sent, names), None, prediction, subject)
        for instrument, names in SENT
        if any(sent.get(name) is not None for name in names)
    ]
    total = sent.get(REPORTED_PHQ9_TOTAL)
    if total is not None and not any(sent.get(name) is not None for name in PHQ9_ANSWERS):
        observations.append(make_observation(PHQ9, [], int(total), prediction, subject))
    return observations


def read_answers(sent: Mapping[str, Any], names: Sequence[str]) -> list[int | None]:
    """Return the answers to the items as whole numbers, None where an item is missing."""
    return [None if sent.get(name) is None else int(sent[name]) for name in names]


def make_observation(
    instrument: Instrument,
    answers: list[int | None],
    total: int | None,
    prediction: Mapping[str, Any],
    subject: Resource,
) -> Resource:
    """Return one instrument's Observation: its total, and its items as components."""
    stated = instrument.total(answers) if total is None else total
    code = make_code(LOINC_SYSTEM, find_total_code(instrument))
    return {
        "resourceType": "Observation",
        "id": instrument.key,
        "meta": {"profile": [PROFILE]},
        "status": "final",
        "category": [{"coding": [make_code(CATEGORY, "survey")]}],
        "code": {"coding": [code], "text": f"{instrument.name} total score"},
        "subject": subject,
        "effectiveDateTime": write_instant(prediction["created_at"]),
        **_make_value(stated),
        **_make_components(instrument, answers),
    }


def find_total_code(instrument: Instrument) -> str:
    """Return the LOINC code of an instrument's total score."""
    return next(code for system, code in instrument.total_codes if system == LOINC_SYSTEM)


def _make_value(points: int | None) -> Resource:
    if points is None:
        return {"dataAbsentReason": {"coding": [make_code(ABSENT, "unknown")]}}
    return {"valueInteger": points}


def _make_components(instrument: Instrument, answers: list[int | None]) -> Resource:
    components = [
        {"code": {"coding": [make_code(LOINC_SYSTEM, loinc)]}, **_make_value(points)}
        for loinc, points in zip(instrument.item_loincs, answers, strict=False)
    ]
    return {"component": components} if components else {}
