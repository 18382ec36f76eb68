"""Which resource a record is, and which of its versions: what replaces and what retracts it."""

from dataclasses import dataclass
from typing import Any

from feature_repo.fhir_values import Resource, as_object, read_word

#: Statuses that are reached before a record is final, and such as correct one that was.
EARLY_STATUSES = frozenset(
    ("registered", "preliminary", "in-progress", "draft", "planned", "arrived", "proposed")
)
CORRECTED_STATUSES = frozenset(("amended", "corrected", "appended"))

#: Rank of versions that nothing else tells apart: the higher one stands.
EARLY, FIRST, CORRECTED, WITHDRAWN = -1, 0, 1, 2


@dataclass(frozen=True)
class Retraction:
    """A resource that is no fact (any more): its name `Type/id`, its version, and whose it was."""

    name: str
    version_number: int | None
    version_at: str | None
    version_rank: int
    person_id: str | None = None


def name_resource(resource: Resource) -> str | None:
    """Return `Type/id`, None for a resource without an id."""
    kind, identifier = resource.get("resourceType"), resource.get("id")
    return f"{kind}/{identifier}" if isinstance(identifier, str) and identifier else None


def describe_version(resource: Resource) -> Resource:
    """Return the columns version_number, version_at and version_rank of a resource."""
    meta = as_object(resource.get("meta"))
    corrected = read_word(resource.get("status")) in CORRECTED_STATUSES
    return {
        "version_number": _read_number(meta.get("versionId")),
        "version_at": _read_text(meta.get("lastUpdated")) or _read_text(resource.get("issued")),
        "version_rank": CORRECTED if corrected else FIRST,
    }


def retract(resource: Resource, person_id: str | None) -> Retraction | None:
    """Return what a resource that is no fact retracts: any version of it that is not newer."""
    name = name_resource(resource)
    if name is None:
        return None
    version = describe_version(resource)
    early = read_word(resource.get("status")) in EARLY_STATUSES
    return Retraction(
        name,
        version["version_number"],
        version["version_at"],
        EARLY if early else WITHDRAWN,
        person_id,
    )


def _read_number(version: Any) -> int | None:
    text = str(version)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None


def _read_text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
