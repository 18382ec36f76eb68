"""Consents in FHIR, read so that what is not clearly permitted is not permitted.

A consent becomes rows of two tables: grants (`consents`) and denials (`withdrawals`). A denial
says until when it reaches back: what was granted up to then, or before then, ends. One that has
no readable date counts from now. A consent that cannot be read is itself a denial of what stood
before it, unless it is a form that denies everything at its root and permits in detail below.
"""

from datetime import UTC, datetime
from typing import Any

from feature_repo.consent_terms import DATA_TYPES, PURPOSES
from feature_repo.fhir_values import (
    Context,
    IgnoredResourceError,
    RejectedResourceError,
    Resource,
    as_list,
    as_object,
    choose_first,
    find_person,
    read_codes,
    read_instant,
    require_date,
)

#: Later than any date.
LAST = datetime.max.replace(tzinfo=UTC)

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
#: Elements that narrow an exception to less than a data type or purpose of a person.
NARROWING = ("actor", "data", "action", "securityLabel", "dataPeriod", "expression", "provision")

Row = tuple[str, Resource]


class UnreadableConsentError(RejectedResourceError):
    """A consent that cannot be read; `suspends` is the denial that it amounts to, if any."""

    def __init__(self, reason: str, suspends: Resource | None) -> None:
        super().__init__(reason)
        self.suspends = suspends


def map_consent(resource: Resource, context: Context) -> list[Row]:
    """Return the grants and denials of a consent.

    Raises UnreadableConsentError for one that does not say enough.
    """
    status = resource.get("status")
    person = find_person(resource, context, element="patient")
    if status not in ("active", *ENDED_STATUSES):
        raise IgnoredResourceError("Consent that is a draft or proposed")
    root = _find_root(resource)
    nested = [as_object(provision) for provision in as_list(root.get("provision"))]
    if status in ENDED_STATUSES or (root.get("type") == "deny" and not nested):
        return [_deny(person, _date_end(resource, root))]
    try:
        return _read_rules(resource, person, root, nested)
    except RejectedResourceError as error:
        permits_below = root.get("type") == "deny" and not _list_denials(nested)
        suspends = None if permits_below else _suspend(person, resource, root)
        raise UnreadableConsentError(str(error), suspends) from error


def _find_root(resource: Resource) -> Resource:
    """Return the root provision; R5 has a decision and a list of provisions instead."""
    provision = resource.get("provision")
    if isinstance(provision, list) or "decision" in resource:
        return {"type": resource.get("decision"), "provision": as_list(provision)}
    return as_object(provision)


def _read_rules(
    resource: Resource, person: str, root: Resource, nested: list[Resource]
) -> list[Row]:
    permits = [provision for provision in nested if provision.get("type") != "deny"]
    denials = [_read_exception(denial) for denial in _list_denials(nested)]
    if root.get("type") == "permit":
        if permits and not _is_list_of_rules(root):
            raise RejectedResourceError("provision.provision: exceptions cannot be kept to")
        rules = [root | permit for permit in permits] or [root]
    elif permits:
        rules = [root | {"type": "permit"} | permit for permit in permits]
    else:
        raise RejectedResourceError("provision.type: is not permit")
    given = _date_start(resource, root)
    grants = [_grant(person, given, rule, denials) for rule in rules]
    ends = [_deny(person, given, types, purposes) for types, purposes in denials]
    return [
        ("consents", grant) for grant in grants if grant["data_types"] and grant["purposes"]
    ] + ends


def _is_list_of_rules(root: Resource) -> bool:
    """Return True where the root itself permits nothing: R5's rules stand beside each other."""
    return not (root.get("class") or root.get("code") or root.get("purpose"))


def _list_denials(nested: list[Resource]) -> list[Resource]:
    return [provision for provision in nested if provision.get("type") == "deny"]


def _grant(
    person: str, given: str, rule: Resource, denials: list[tuple[set[str], set[str]]]
) -> Resource:
    period = as_object(rule.get("period"))
    data_types, purposes = _read_types(rule), _read_purposes(rule)
    for denied_types, denied_purposes in denials:
        if not denied_purposes or denied_purposes >= purposes:
            data_types = data_types - (denied_types or data_types)
        elif not denied_types or denied_types >= data_types:
            purposes = purposes - denied_purposes
        else:
            data_types = data_types - denied_types
    return {
        "person_id": person,
        "granted_at": choose_latest(given, choose_first(period.get("start"))),
        "began_at": choose_first(period.get("start")),
        "expires_at": require_date("provision.period.end", period.get("end")),
        "data_types": sorted(data_types),
        "purposes": sorted(purposes),
        "replaces": True,
    }


def _read_types(rule: Resource) -> set[str]:
    return _translate(_list_classes(rule), DATA_TYPE_CODES, "provision.class")


def _read_purposes(rule: Resource) -> set[str]:
    return _translate(as_list(rule.get("purpose")), PURPOSE_CODES, "provision.purpose")


def _list_classes(rule: Resource) -> list[Any]:
    concepts = [as_object(code).get("coding") for code in as_list(rule.get("code"))]
    documents = [as_object(kind).get("coding") for kind in as_list(rule.get("resourceType"))]
    coded = [coding for codings in (*concepts, *documents) for coding in as_list(codings)]
    return [*as_list(rule.get("class")), *as_list(rule.get("resourceType")), *coded]


def _translate(codings: list[Any], terms: dict[str, str], element: str) -> set[str]:
    translated = {terms[code] for code in read_codes(_flatten(codings)) if code in terms}
    if not translated:
        raise RejectedResourceError(f"{element}: names none of {', '.join(sorted(terms))}")
    return translated


def _flatten(codings: list[Any]) -> list[Any]:
    """Return codings, those inside concepts (R5's purpose is a Coding, some write a concept)."""
    inner = [
        inner_coding
        for coding in codings
        for inner_coding in as_list(as_object(coding).get("coding"))
    ]
    return [*codings, *inner]


def _read_exception(rule: Resource) -> tuple[set[str], set[str]]:
    """Return what a nested denial takes away: data types and purposes, empty for all of them."""
    classes, purposes = _list_classes(rule), as_list(rule.get("purpose"))
    narrowed = any(rule.get(name) for name in NARROWING)
    if narrowed or not (classes or purposes):
        raise RejectedResourceError("provision.provision: exceptions cannot be kept to")
    try:
        types = _read_types(rule) if classes else set()
        return types, _read_purposes(rule) if purposes else set()
    except RejectedResourceError as error:
        raise RejectedResourceError(
            f"provision.provision: exceptions cannot be kept to ({error})"
        ) from error


def _date_start(resource: Resource, root: Resource) -> str:
    """Return since when a consent is given: not before it was signed, nor before it begins."""
    period = as_object(root.get("period"))
    stated = (resource.get("dateTime"), resource.get("date"), period.get("start"))
    dates = [date for date in map(choose_first, stated) if date]
    return choose_latest(*dates) if dates else require_date("dateTime")


def _date_end(resource: Resource, root: Resource) -> str | None:
    """Return until when an ended consent reaches back, None (now) where no date can be read."""
    written = resource.get("dateTime") or resource.get("date")
    period = as_object(root.get("period"))
    if choose_first(written) is None:
        return None
    return choose_latest(str(written), choose_first(period.get("start")))


def choose_latest(*dates: str | None) -> str:
    """Return the latest of FHIR dates, of which each may have its own offset; None is left out.

    A date that is no date counts as the latest, so that it is refused where dates are checked.
    """
    return max(filter(None, dates), key=lambda date: read_instant(date) or LAST)


def _deny(
    person: str,
    until: str | None,
    data_types: set[str] | None = None,
    purposes: set[str] | None = None,
) -> Row:
    return "withdrawals", {
        "person_id": person,
        "granted_at": until,
        "data_types": sorted(data_types or ()),
        "purposes": sorted(purposes or ()),
    }


def _suspend(person: str, resource: Resource, root: Resource) -> Resource:
    _, row = _deny(person, _date_end(resource, root))
    return row | {"only_before": True}
