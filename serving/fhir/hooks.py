"""The CDS Hooks service: the data it prefetches, and the fields of a call.

Source: CDS Hooks 2.0, "Discovery" and "Calling a CDS Service"; hook patient-view 1.0.
"""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from feature_repo.instruments import GAD7, PHQ9
from serving.errors import ProblemError
from serving.fhir.elements import Resource
from serving.fhir.observations import find_total_code

SERVICE_ID = "mhras-review"
HOOK = "patient-view"
#: Entries of a prefetched search that are read; an EHR may send more than requested.
MOST_ENTRIES = 200
PREFETCH = {
    "patient": "Patient/{{context.patientId}}",
    "phq9": "Observation?patient={{context.patientId}}"
    f"&code=http://loinc.org|{find_total_code(PHQ9)}&_sort=-date&_count=1",
    "gad7": "Observation?patient={{context.patientId}}"
    f"&code=http://loinc.org|{find_total_code(GAD7)}&_sort=-date&_count=1",
    "responses": "QuestionnaireResponse?patient={{context.patientId}}&_sort=-authored&_count=20",
}

ResourceId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9\-.]{1,64}$")]


class HookPart(BaseModel):
    """Unknown fields are ignored, as the specification requires of services."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class PatientViewContext(HookPart):
    userId: Annotated[str, StringConstraints(max_length=200)]  # noqa: N815 (as the specification)
    patientId: ResourceId  # noqa: N815
    encounterId: ResourceId | None = None  # noqa: N815


class HookRequest(HookPart):
    hook: Literal["patient-view"]
    hookInstance: UUID  # noqa: N815
    context: PatientViewContext
    prefetch: dict[str, dict[str, Any] | None] = Field(default={}, max_length=20)


class PrefetchMissingError(ProblemError):
    status = 412
    kind = "prefetch-missing"
    title = "Data that the service needs were not prefetched"


def describe_services() -> Resource:
    """Return the answer of discovery."""
    return {
        "services": [
            {
                "hook": HOOK,
                "id": SERVICE_ID,
                "title": "Mental health review priority",
                "description": "Ranks people for review by a clinician from PHQ-9, GAD-7 and the "
                "data they consented to. Not a diagnosis.",
                "prefetch": PREFETCH,
                "version": "3.0.0",
                "hookVersion": "1.0",
            }
        ]
    }


def list_resources(request: HookRequest) -> list[Resource]:
    """Return the prefetched resources, those of search results one by one.

    Raises PrefetchMissingError naming each key that is missing; null means that nothing was found.
    """
    missing = [name for name in PREFETCH if name not in request.prefetch]
    if missing:
        raise PrefetchMissingError(
            f"send prefetch with {', '.join(missing)}; this service does not call the FHIR server"
        )
    resources: list[Resource] = []
    for name in PREFETCH:
        resources.extend(_unpack(request.prefetch[name]))
    return resources


def _unpack(resource: Resource | None) -> list[Resource]:
    if resource is None:
        return []
    if resource.get("resourceType") != "Bundle":
        return [resource]
    entries = resource.get("entry")
    listed = entries[:MOST_ENTRIES] if isinstance(entries, list) else []
    resources = [entry.get("resource") for entry in listed if isinstance(entry, dict)]
    return [item for item in resources if isinstance(item, dict)]


def has_died(resources: list[Resource]) -> bool:
    """Return True if the prefetched Patient is recorded as deceased."""
    patients = [resource for resource in resources if resource.get("resourceType") == "Patient"]
    return any(
        patient.get("deceasedBoolean") is True or isinstance(patient.get("deceasedDateTime"), str)
        for patient in patients
    )
