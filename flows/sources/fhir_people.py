"""Patients: who they are, whom they replace, and whether they are alive."""

from feature_repo.fhir_values import (
    Context,
    IgnoredResourceError,
    RejectedResourceError,
    Resource,
    as_list,
    as_object,
    read_codes,
)
from flows.sources.versions import (
    EARLY,
    WITHDRAWN,
    Retraction,
    describe_version,
    name_resource,
)

#: Names the statement that a Patient is dead, apart from the Patient itself.
DEATH = "death of "

US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition/"

#: CDC race and ethnicity codes (OMB categories).
RACES = {"2106-3": "white", "2054-5": "black", "2028-9": "asian"}


def map_patient(resource: Resource, context: Context) -> Resource:
    """Return a person; ethnicity is the US Core ethnicity if Hispanic, else the race.

    Raises RejectedResourceError, or IgnoredResourceError for a record that is not in use.
    """
    person_id = resource.get("id")
    if not isinstance(person_id, str) or not person_id:
        raise RejectedResourceError("Patient.id: is missing")
    if person_id in context.replaced:
        raise IgnoredResourceError("Patient that another replaces")
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


def read_links(resource: Resource, context: Context) -> dict[str, str]:
    """Return who replaces whom by a Patient's links: the id that is left by the id that was."""
    own = resource.get("id")
    links: dict[str, str] = {}
    for link in map(as_object, as_list(resource.get("link"))):
        reference = as_object(link.get("other")).get("reference")
        kind, _, other = context.resolve(str(reference)).partition("/")
        if not isinstance(own, str) or kind != "Patient" or other in ("", own):
            continue
        if link.get("type") == "replaced-by":
            links[own] = other
        elif link.get("type") == "replaces":
            links[other] = own
    return links


def is_deceased(resource: Resource) -> bool:
    """Return whether a version of a Patient says that the person is dead."""
    return resource.get("deceasedBoolean") is True or bool(resource.get("deceasedDateTime"))


def take_back_death(resource: Resource) -> Retraction | None:
    """Return what a Patient who is not dead retracts: the death that an older version stated.

    A version of a resource is whole: one without deceased[x] states no death any more, if it says
    which version it is. Otherwise it may be older, or only a part; `deceasedBoolean` false is
    enough then.
    """
    version = describe_version(resource)
    is_dated = version["version_number"] is not None or version["version_at"] is not None
    is_stated = resource.get("deceasedBoolean") is False
    if not (is_dated or is_stated):
        return None
    version["version_rank"] = WITHDRAWN if is_stated else EARLY
    return Retraction(f"{DEATH}{name_resource(resource)}", **version, person_id=resource["id"])
