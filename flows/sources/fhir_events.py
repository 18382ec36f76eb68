"""Condition, MedicationRequest and Encounter as events of care."""

from typing import Any

from flows.sources.fhir_values import (
    Context,
    IgnoredResourceError,
    RejectedResourceError,
    Resource,
    as_list,
    as_object,
    choose_first,
    find_person,
    iterate_codings,
    read_codes,
    refuse_status,
    require_date,
)
from flows.sources.mental_health import is_mental_health

#: v3-ActCode classes of an encounter; all others are outpatient care.
SETTINGS_BY_CLASS = {
    "EMER": "emergency",
    "IMP": "inpatient",
    "ACUTE": "inpatient",
    "NONAC": "inpatient",
    "OBSENC": "inpatient",
    "SS": "inpatient",
}

NOT_A_FACT = {"refuted", "entered-in-error", "differential"}


def map_condition(resource: Resource, context: Context) -> Resource:
    """Return a diagnosis from its onset, known since it was recorded."""
    verification = read_codes(iterate_codings(resource.get("verificationStatus")))
    if verification & NOT_A_FACT:
        raise IgnoredResourceError(
            f"Condition that is {', '.join(sorted(verification & NOT_A_FACT))}"
        )
    onset = as_object(resource.get("onsetPeriod"))
    recorded = choose_first(resource.get("recordedDate"))
    started = require_date(
        "onsetDateTime", resource.get("onsetDateTime"), onset.get("start"), recorded
    )
    abated = as_object(resource.get("abatementPeriod")).get("end")
    return _event("diagnosis", resource, context, as_list(resource.get("code"))) | {
        "started_at": started,
        "ended_at": choose_first(resource.get("abatementDateTime"), abated),
        "recorded_at": recorded,
    }


def map_medication_request(resource: Resource, context: Context) -> Resource:
    """Return a medication from the day it was ordered or reported."""
    refuse_status(resource, "active", "completed", "stopped", "on-hold", "unknown")
    period = as_object(as_object(resource.get("dispenseRequest")).get("validityPeriod"))
    authored = require_date("authoredOn", resource.get("authoredOn"), period.get("start"))
    return _event("medication", resource, context, _find_medication(resource, context)) | {
        "started_at": authored
    }


def map_encounter(resource: Resource, context: Context) -> Resource:
    """Return an encounter with its setting."""
    refuse_status(resource, "in-progress", "finished", "arrived", "triaged", "onleave")
    period = as_object(resource.get("period"))
    concepts = [
        *as_list(resource.get("type")),
        *as_list(resource.get("serviceType")),
        *as_list(resource.get("reasonCode")),
    ]
    class_ = as_object(resource.get("class"))
    types = [*as_list(resource.get("type")), {"coding": [class_]}]
    return _event("encounter", resource, context, types) | {
        "started_at": require_date("period.start", period.get("start")),
        "ended_at": choose_first(period.get("end")),
        "setting": name_setting(str(class_.get("code")), concepts),
    }


def name_setting(class_code: str, concepts: list[Any]) -> str:
    """Return the contract's setting of an encounter with this class, types and reasons."""
    setting = SETTINGS_BY_CLASS.get(class_code, "outpatient")
    return f"psychiatric_{setting}" if _find_mental_health(concepts) else setting


def read_medication(resource: Resource) -> list[Resource]:
    """Return the codings of a Medication resource."""
    return list(iterate_codings(resource.get("code")))


def _event(kind: str, resource: Resource, context: Context, concepts: list[Any]) -> Resource:
    codings = [coding for coding in iterate_codings(concepts) if coding.get("system")]
    if not codings:
        raise RejectedResourceError("code: has no coding with a system")
    # One event a resource: of several codings the one that bears on mental health, else the first.
    coding = _find_mental_health(concepts) or codings[0]
    return {
        "person_id": find_person(resource, context),
        "kind": kind,
        "system": str(coding["system"]),
        "code": str(coding["code"]),
    }


def _find_mental_health(concepts: list[Any]) -> Resource | None:
    for coding in iterate_codings(concepts):
        if is_mental_health(str(coding.get("system")), str(coding["code"])):
            return coding
    return None


def _find_medication(resource: Resource, context: Context) -> list[Any]:
    """Return the concepts of a medication that is coded, contained or referenced."""
    concept = resource.get("medicationCodeableConcept")
    if concept:
        return [concept]
    reference = str(as_object(resource.get("medicationReference")).get("reference", ""))
    if reference.startswith("#"):
        contained = [
            one
            for one in as_list(resource.get("contained"))
            if as_object(one).get("id") == reference[1:]
        ]
        return [one.get("code") for one in contained]
    known = context.medications.get(context.resolve(reference))
    if known is None:
        raise RejectedResourceError("medicationReference: the Medication is not in the drop")
    return [{"coding": known}]
