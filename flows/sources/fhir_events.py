"""Conditions, medications and encounters as events of care, in R4 and its neighbours.

What is not a fact is ignored by kind: ruled out, proposed, not to be given. What is not known, as
the setting of an unknown class, stays unknown and is counted; nothing becomes outpatient by guess.
"""

import re
from typing import Any

from feature_repo.clinical_codes import READ_SYSTEMS, normalise_system
from feature_repo.fhir_values import (
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
    read_word,
    refuse_status,
    require_date,
)
from flows.sources.mental_health import is_mental_health

#: Classes of an encounter: v3-ActCode, and the words of DSTU2 and STU3.
SETTINGS_BY_CLASS = {
    "EMER": "emergency",
    "IMP": "inpatient",
    "ACUTE": "inpatient",
    "NONAC": "inpatient",
    "OBSENC": "inpatient",
    "SS": "inpatient",
    "AMB": "outpatient",
    "VR": "outpatient",
    "HH": "outpatient",
    "FLD": "outpatient",
    "PRENC": "outpatient",
    "OUTPATIENT": "outpatient",
    "AMBULATORY": "outpatient",
    "VIRTUAL": "outpatient",
    "HOME": "outpatient",
    "FIELD": "outpatient",
    "DAYTIME": "outpatient",
    "INPATIENT": "inpatient",
    "EMERGENCY": "emergency",
}
#: Systems (other than none) whose class codes these are; "101" of a local system is no class.
CLASS_SYSTEMS = re.compile(
    r"v3-ActCode|encounter-class|2\.16\.840\.1\.113883\.5\.4$", re.IGNORECASE
)

NOT_A_FACT = {"refuted", "entered-in-error", "differential"}
#: German certainty of a diagnosis: A is ruled out, V suspected, Z a state after.
CERTAINTY = "icd-10-gm-diagnosesicherheit"
NOT_ORDERS = {"proposal", "plan", "option"}
NOT_GIVEN = {"not-taken", "not-done", "declined", "entered-in-error", "intended"}


def map_condition(resource: Resource, context: Context) -> Resource:
    """Return a diagnosis from its onset, known since it was recorded.

    Raises IgnoredResourceError where it states no fact.
    """
    doubt = _read_words(resource.get("verificationStatus")) & NOT_A_FACT
    if doubt:
        raise IgnoredResourceError(f"Condition that is {', '.join(sorted(doubt))}", retracts=True)
    if "A" in _read_certainties(resource):
        raise IgnoredResourceError("Condition that is ruled out (certainty A)", retracts=True)
    onset = as_object(resource.get("onsetPeriod"))
    recorded = choose_first(resource.get("recordedDate"), resource.get("assertedDate"))
    abated = as_object(resource.get("abatementPeriod")).get("end")
    return _event("diagnosis", resource, context, as_list(resource.get("code"))) | {
        "started_at": _find_onset(resource, onset, recorded),
        "ended_at": choose_first(resource.get("abatementDateTime"), abated),
        "recorded_at": recorded,
    }


def _find_onset(resource: Resource, onset: Resource, recorded: str | None) -> str:
    """Return the day of onset, else that of recording; of a year or month alone its first day.

    An imprecise onset is still nearer to the truth than the day on which it was recorded.
    """
    stated = resource.get("onsetDateTime") or onset.get("start")
    if isinstance(stated, str) and re.fullmatch(r"\d{4}(?:-\d{2})?", stated):
        return f"{stated}-01-01"[:10] if len(stated) == 4 else f"{stated}-01"
    return require_date("onsetDateTime", stated, recorded)


def _read_words(concept: Any) -> set[str]:
    """Return the codes of a status that is a concept (R4), a string (STU3) or only a text."""
    texts = [concept, as_object(concept).get("text")]
    words = {re.sub(r"[ _]+", "-", text.strip().lower()) for text in texts if isinstance(text, str)}
    return words | {code.lower() for code in read_codes(iterate_codings(concept))}


def _read_certainties(resource: Resource) -> set[str]:
    return {
        str(as_object(extension.get("valueCoding")).get("code"))
        for coding in [resource, *iterate_codings(resource.get("code"))]
        for extension in map(as_object, as_list(coding.get("extension")))
        if str(extension.get("url", "")).endswith(CERTAINTY)
    }


def map_medication(resource: Resource, context: Context) -> Resource:
    """Return a medication from the day it was ordered, dispensed, given or reported as taken.

    An order that was stopped ended: when that was said, or where nothing says so, at once. Raises
    IgnoredResourceError where nothing was taken or ordered.
    """
    status = read_word(resource.get("status"))
    kind = str(resource["resourceType"])
    if resource.get("doNotPerform") is True:
        raise IgnoredResourceError(f"{kind} with doNotPerform", retracts=True)
    if read_word(resource.get("intent")) in NOT_ORDERS:
        raise IgnoredResourceError(f"{kind} that is a {resource['intent']}", retracts=True)
    if resource.get("taken") in ("n", "unk", "na"):
        raise IgnoredResourceError(f"{kind} that was not taken", retracts=True)
    if status in NOT_GIVEN or status in ("cancelled", "draft", "preparation"):
        raise IgnoredResourceError(f"{kind} with status {status}", retracts=True)
    refuse_status(resource, *MEDICATION_STATUSES)
    started, ended = _find_use(resource)
    if status in ("stopped", "discontinued"):
        updated = choose_first(as_object(resource.get("meta")).get("lastUpdated"))
        ended = ended or (updated if updated and updated[:10] >= started[:10] else started)
    return _event("medication", resource, context, _find_medication(resource, context)) | {
        "started_at": started,
        "ended_at": ended,
    }


MEDICATION_STATUSES = (
    *("active", "completed", "stopped", "discontinued", "on-hold", "unknown"),
    *("in-progress", "recorded", "ended"),
)


def _find_use(resource: Resource) -> tuple[str, str | None]:
    """Return when the use of a medication began and ended, as its kind of resource says it."""
    period = as_object(as_object(resource.get("dispenseRequest")).get("validityPeriod"))
    used = as_object(resource.get("effectivePeriod") or resource.get("occurrencePeriod"))
    started = require_date(
        "authoredOn",
        resource.get("authoredOn"),
        resource.get("effectiveDateTime"),
        resource.get("occurrenceDateTime"),
        used.get("start"),
        resource.get("whenHandedOver"),
        resource.get("whenPrepared"),
        period.get("start"),
        resource.get("dateAsserted"),
    )
    ended = choose_first(used.get("end"))
    return started, ended if ended and ended[:10] >= started[:10] else None


def map_encounter(resource: Resource, context: Context) -> Resource:
    """Return an encounter with its setting, null where its class is not known."""
    refuse_status(
        resource, "in-progress", "finished", "arrived", "triaged", "onleave", *R5_STATUSES
    )
    period = as_object(resource.get("period") or resource.get("actualPeriod"))
    reasons = [as_object(reason).get("value") for reason in as_list(resource.get("reason"))]
    concepts = [
        *as_list(resource.get("type")),
        *as_list(resource.get("serviceType")),
        *as_list(resource.get("reasonCode")),
        *(as_object(value).get("concept") for values in reasons for value in as_list(values)),
    ]
    classes = list_classes(resource.get("class"))
    types = [*as_list(resource.get("type")), {"coding": classes}]
    return _event("encounter", resource, context, types) | {
        "started_at": require_date("period.start", period.get("start")),
        "ended_at": choose_first(period.get("end")),
        "setting": name_setting(classes, concepts),
    }


R5_STATUSES = ("completed", "discharged", "on-hold")


def list_classes(element: Any) -> list[Resource]:
    """Return the codings of Encounter.class: one (R4), in concepts (R5), or a word (DSTU2)."""
    if isinstance(element, str):
        return [{"code": element}]
    direct = [coding for coding in map(as_object, as_list(element)) if coding.get("code")]
    return [*direct, *iterate_codings(element)]


def name_setting(classes: list[Resource], concepts: list[Any]) -> str | None:
    """Return the contract's setting of an encounter with these classes, types and reasons."""
    care_settings = [
        SETTINGS_BY_CLASS[str(coding["code"]).upper()]
        for coding in classes
        if str(coding["code"]).upper() in SETTINGS_BY_CLASS
        and (not coding.get("system") or CLASS_SYSTEMS.search(str(coding["system"])))
    ]
    if not care_settings:
        return None
    return f"psychiatric_{care_settings[0]}" if _find_mental_health(concepts) else care_settings[0]


def read_medication(resource: Resource) -> list[Resource]:
    """Return the codings of a Medication resource."""
    return list(iterate_codings(resource.get("code")))


def _event(kind: str, resource: Resource, context: Context, concepts: list[Any]) -> Resource:
    codings = [coding for coding in iterate_codings(concepts) if coding.get("system")]
    if not codings:
        raise RejectedResourceError("code: has no coding with a system")
    # One event a resource: of several codings the one that bears on mental health, else the first
    # of a system that is read, else the first.
    read = READ_SYSTEMS.get(kind, ())
    usable = (coding for coding in codings if normalise_system(str(coding["system"])) in read)
    coding = _find_mental_health(concepts) or next(usable, codings[0])
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
    either = as_object(resource.get("medication"))  # R5's CodeableReference
    concept = resource.get("medicationCodeableConcept") or either.get("concept")
    if concept:
        return [concept]
    linked = resource.get("medicationReference") or either.get("reference")
    reference = str(as_object(linked).get("reference", ""))
    if reference.startswith("#"):
        contained = [
            medication
            for medication in as_list(resource.get("contained"))
            if as_object(medication).get("id") == reference[1:]
        ]
        return [medication.get("code") for medication in contained]
    codings = context.medications.get(context.resolve(reference))
    if codings is None:
        raise RejectedResourceError("medicationReference: the Medication is not in the drop")
    return [{"coding": codings}]
