"""Patient and Consent."""

from typing import Any

from feature_repo.consent_terms import DATA_TYPES, PURPOSES
from flows.sources.fhir_values import (
    Context,
    IgnoredResourceError,
    RejectedResourceError,
    Resource,
    as_list,
    as_object,
    find_person,
    read_codes,
    require_date,
)

US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition/"

#: CDC race and ethnicity codes (OMB categories).
RACES = {"2106-3": "white", "2054-5": "black", "2028-9": "asian"}

#: Codes of provision.class or provision.code that name a data type. Observation is not among
#: them: it may be a survey, a reading or a laboratory value, and consent is not guessed.
DATA_TYPE_CODES = {name: name for name in DATA_TYPES} | {
    "QuestionnaireResponse": "survey",
    "Condition": "emr",
    "Encounter": "emr",
    "MedicationRequest": "emr",
    "Device": "wearable",
    "DeviceMetric": "wearable",
}
#: Codes of provision.purpose (v3-ActReason) that name a purpose.
PURPOSE_CODES = {name: name for name in PURPOSES} | {
    "HRESCH": "training",
    "BIORCH": "training",
    "TREAT": "screening",
    "CAREMGT": "screening",
}
ENDED_STATUSES = ("inactive", "rejected", "entered-in-error")


def map_patient(resource: Resource, context: Context) -> Resource:
    """Return a person; ethnicity is the US Core ethnicity if Hispanic, else the race."""
    person_id = resource.get("id")
    if not isinstance(person_id, str) or not person_id:
        raise RejectedResourceError("Patient.id: is missing")
    return {
        "person_id": person_id,
        "birth_date": resource.get("birthDate"),
        "sex": resource.get("gender"),
        "ethnicity": read_ethnicity(resource),
    }


def read_ethnicity(resource: Resource) -> str | None:
    """Return a lower-case group name from the US Core extensions, None without them."""
    ethnicity = _read_us_core(resource, "us-core-ethnicity")
    if "2135-2" in ethnicity:
        return "hispanic"
    race = _read_us_core(resource, "us-core-race")
    names = {RACES.get(code, "other") for code in race}
    return next(iter(names)) if len(names) == 1 else ("other" if names else None)


def _read_us_core(resource: Resource, name: str) -> set[str]:
    codings = [
        as_object(part.get("valueCoding"))
        for extension in as_list(resource.get("extension"))
        if as_object(extension).get("url") == US_CORE + name
        for part in as_list(extension.get("extension"))
        if as_object(part).get("url") == "ombCategory"
    ]
    return read_codes(codings)


def map_consent(resource: Resource, context: Context) -> tuple[str, Resource]:
    """Return ("consents", row), or ("withdrawals", row) of one that ended or denies.

    A consent is read strictly: what it does not say, it does not permit.
    """
    status = resource.get("status")
    provision = as_object(resource.get("provision"))
    person = find_person(resource, context, element="patient")
    period = as_object(provision.get("period"))
    granted = require_date("dateTime", period.get("start"), resource.get("dateTime"))
    if status in ENDED_STATUSES or provision.get("type") == "deny":
        ended = require_date("dateTime", resource.get("dateTime"), granted)
        return "withdrawals", {"person_id": person, "granted_at": max(granted, ended)}
    if status != "active":
        raise IgnoredResourceError("Consent that is a draft or proposed")
    return "consents", {
        "person_id": person,
        "granted_at": granted,
        "expires_at": require_date("provision.period.end", period.get("end")),
    } | _read_scope(provision)


def _read_scope(provision: Resource) -> dict[str, Any]:
    if provision.get("provision"):
        raise RejectedResourceError("provision.provision: exceptions cannot be kept to")
    if provision.get("type") != "permit":
        raise RejectedResourceError("provision.type: is not permit")
    concepts = [as_object(code).get("coding") for code in as_list(provision.get("code"))]
    classes = [*as_list(provision.get("class")), *(one for c in concepts for one in as_list(c))]
    return {
        "data_types": _translate(classes, DATA_TYPE_CODES, "provision.class"),
        "purposes": _translate(
            as_list(provision.get("purpose")), PURPOSE_CODES, "provision.purpose"
        ),
    }


def _translate(codings: list[Any], terms: dict[str, str], element: str) -> list[str]:
    found = sorted({terms[code] for code in read_codes(codings) if code in terms})
    if not found:
        raise RejectedResourceError(f"{element}: names none of {', '.join(sorted(terms))}")
    return found
