"""Values inside FHIR resources: references, codings, dates, quantities."""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from feature_repo.clinical_codes import normalise_system
from feature_repo.instruments import LOINC_SYSTEM

Resource = dict[str, Any]

REFERENCE = re.compile(
    r"(?:^|/)(?P<kind>[A-Z][A-Za-z]+)/(?P<id>[A-Za-z0-9\-.]{1,64})(?:/_history/.*)?$"
)
FULL_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")

#: UCUM codes and the names that devices write instead.
MINUTES_PER_UNIT = {
    "min": 1.0,
    "minute": 1.0,
    "minutes": 1.0,
    "h": 60.0,
    "hr": 60.0,
    "hour": 60.0,
    "hours": 60.0,
    "s": 1 / 60,
    "sec": 1 / 60,
    "second": 1 / 60,
    "seconds": 1 / 60,
    "ms": 1 / 60_000,
}
MILLISECONDS_PER_UNIT = {"ms": 1.0, "millisecond": 1.0, "milliseconds": 1.0, "s": 1000.0}
PER_MINUTE = dict.fromkeys(
    ("/min", "1/min", "{beats}/min", "beats/min", "beats/minute", "{beat}/min", "bpm"), 1.0
)
#: A count has no unit in UCUM: an annotation in braces may name anything (see read_quantity).
PER_DAY = dict.fromkeys(
    ("steps", "step", "count", "1", "/d", "1/d", "/(24.h)", "1/(24.h)", "steps/day", "steps/d"),
    1.0,
)
ANNOTATION = re.compile(r"\{[^{}]*\}")

UNUSED_STATUSES = (
    "entered-in-error",
    "in-progress",
    "stopped",
    "registered",
    "preliminary",
    "cancelled",
    "draft",
    "planned",
    "unknown",
    "not-done",
    "declined",
    "on-hold",
    "ended",
    "intended",
    "not-taken",
    "discharged",
    "discontinued",
)


#: Statuses of a resource that is no fact, or no longer one; the others leave it open.
RETRACTING_STATUSES = (
    *("entered-in-error", "cancelled", "not-done", "not-taken", "declined", "draft"),
    *("registered", "preliminary", "in-progress", "planned"),
)


class RejectedResourceError(ValueError):
    """A resource of the contract that cannot become a row; the message gives the reason."""


class IgnoredResourceError(Exception):
    """A resource that the contract has no use for; its text is the kind it is counted under.

    `retracts`: the resource is marked as no fact, so an earlier version of it is none either.
    """

    def __init__(self, kind: str, retracts: bool = False) -> None:
        super().__init__(kind)
        self.retracts = retracts


@dataclass(frozen=True)
class Form:
    """A Questionnaire: its instrument, and the item of each linkId."""

    instrument: str | None
    items: dict[str, tuple[str, int]]


@dataclass
class Context:
    """What other resources of the drop say that one resource alone does not.

    `full_urls`: of a Bundle, from an entry's fullUrl to `Type/id`. `medications`: codings of the
    drop's Medications by `Medication/id`. `forms`: its Questionnaires by id and by address.
    `identifiers`: Patient.id by (system, value). `replaced`: Patient.id by the id it replaces.
    `pages`: addresses of the pages of search results that are in the drop.
    """

    full_urls: dict[str, str] = field(default_factory=dict)
    medications: dict[str, list[Resource]] = field(default_factory=dict)
    forms: dict[str, Form] = field(default_factory=dict)
    identifiers: dict[tuple[str, str], str] = field(default_factory=dict)
    replaced: dict[str, str] = field(default_factory=dict)
    pages: set[str] = field(default_factory=set)

    def within(self, full_urls: dict[str, str]) -> "Context":
        """Return this context for the entries of one Bundle."""
        return Context(
            full_urls,
            self.medications,
            self.forms,
            self.identifiers,
            self.replaced,
            self.pages,
        )

    def resolve(self, reference: str) -> str:
        """Return `Type/id` of a relative, absolute or urn:uuid reference."""
        if reference in self.full_urls:
            return self.full_urls[reference]
        match = REFERENCE.search(reference)
        return f"{match['kind']}/{match['id']}" if match else reference


def find_person(resource: Resource, context: Context, element: str = "subject") -> str:
    """Return the Patient.id that a resource is about, or reject it.

    Raises RejectedResourceError.
    """
    subject = as_object(resource.get(element) or resource.get("patient"))
    reference = subject.get("reference")
    if not isinstance(reference, str) or not reference:
        return _find_by_identifier(subject, context, element)
    if reference.startswith("#"):
        return _find_contained(resource, reference[1:], context, element)
    resolved = context.resolve(reference)
    if resolved.startswith("urn:uuid:"):
        return resolved.removeprefix("urn:uuid:")
    kind, _, person_id = resolved.partition("/")
    if kind != "Patient" or not person_id:
        raise RejectedResourceError(f"{element}.reference: does not name a Patient")
    return person_id


def _find_by_identifier(subject: Resource, context: Context, element: str) -> str:
    identifier = as_object(subject.get("identifier"))
    patient_id = context.identifiers.get(name_identifier(identifier))
    if patient_id is None:
        cause = ", and its identifier is of no Patient in the drop" if identifier else ""
        raise RejectedResourceError(f"{element}.reference: is missing{cause}")
    return patient_id


def _find_contained(resource: Resource, local: str, context: Context, element: str) -> str:
    for contained in map(as_object, as_list(resource.get("contained"))):
        if contained.get("id") == local and contained.get("resourceType") == "Patient":
            for identifier in map(as_object, as_list(contained.get("identifier"))):
                patient_id = context.identifiers.get(name_identifier(identifier))
                if patient_id is not None:
                    return patient_id
    raise RejectedResourceError(
        f"{element}.reference: is to a contained Patient whose identifier is of none in the drop"
    )


def name_identifier(identifier: Resource) -> tuple[str, str]:
    return str(identifier.get("system", "")), str(identifier.get("value", ""))


def iterate_codings(*concepts: Any) -> Iterator[Resource]:
    """Yield the codings of CodeableConcepts (or lists of them), in their order."""
    for concept in concepts:
        for single_concept in as_list(concept):
            for coding in as_list(as_object(single_concept).get("coding")):
                if isinstance(coding, dict) and coding.get("code"):
                    yield coding


def find_loincs(concept: Any) -> list[str]:
    """Return the LOINC codes of a CodeableConcept, however its system is written."""
    return [
        str(coding["code"]).strip()
        for coding in iterate_codings(concept)
        if normalise_system(str(coding.get("system"))) == LOINC_SYSTEM
    ]


def read_codes(codings: Iterable[Any]) -> set[str]:
    return {str(coding["code"]) for coding in codings if as_object(coding).get("code")}


def choose_first(*values: Any) -> str | None:
    """Return the first value that is a date precise to the day."""
    return next(
        (value for value in values if isinstance(value, str) and FULL_DATE.match(value)), None
    )


def read_instant(text: Any) -> datetime | None:
    """Return a written time; one of a date alone is its midnight, None where it is neither.

    Without an offset it is of UTC.
    """
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def require_date(element: str, *values: Any) -> str:
    """Return the first value precise to the day, or reject the resource.

    Raises RejectedResourceError.
    """
    value = choose_first(*values)
    if value is None:
        raise RejectedResourceError(f"{element}: is missing or not precise to the day")
    return value


def read_quantity(quantity: Any, factors: dict[str, float]) -> float:
    """Return a Quantity in the unit for which `factors` has 1, or reject the resource.

    Raises RejectedResourceError.
    """
    content = as_object(quantity)
    value = content.get("value")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RejectedResourceError("valueQuantity.value: is missing or not a number")
    for unit in (content.get("code"), content.get("unit")):
        written = str(unit).strip().lower()
        form = written if written in factors else _strip_annotations(written)
        if form in factors:
            return to_float(value) * factors[form]
    raise RejectedResourceError(f"valueQuantity.code: is not one of {', '.join(factors)}")


def _strip_annotations(unit: str) -> str:
    """Return a unit without what it counts, which changes no value: {steps}/d is 1/d, {#} is 1."""
    return re.sub(r"^(?=/|$)", "1", ANNOTATION.sub("", unit)) if unit else ""


def to_float(number: float) -> float:
    """Return a JSON number, whose digits have no limit, as the nearest float."""
    try:
        return float(number)
    except OverflowError:
        return math.inf


def read_word(value: Any) -> str:
    """Return a code as it is written, "" for what is no text."""
    return value if isinstance(value, str) else ""


def as_object(value: Any) -> Resource:
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def refuse_status(resource: Resource, *allowed: str) -> None:
    """Ignore a resource whose status marks it as not, or not yet, a fact.

    Raises IgnoredResourceError.
    """
    status = read_word(resource.get("status"))
    if status not in allowed:
        # A status that FHIR does not define may be any text, even a name.
        safe_status = status if status in UNUSED_STATUSES else "that FHIR does not define"
        kind = f"{resource['resourceType']} with status {safe_status}"
        raise IgnoredResourceError(kind, retracts=status in RETRACTING_STATUSES)
