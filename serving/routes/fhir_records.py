"""FHIR R4: who agreed to what, where an assessment comes from, and who saw a record."""

import re
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from starlette.responses import Response

from serving.audit.trail import AUDIT_ACCESS, CONSENT_VIEW, Event
from serving.database.rows import describe_row
from serving.dependencies import (
    AccessHistoryReader,
    ConsentReader,
    DbSession,
    ProvenanceReader,
    Trail,
    WorkerServices,
)
from serving.errors import UnusableError
from serving.fhir.audit_events import make_audit_event
from serving.fhir.consents import list_consents, make_consent
from serving.fhir.elements import make_search_set, make_subject
from serving.fhir.operation_outcomes import READ_PROBLEMS, FhirResponse
from serving.fhir.provenance import list_amendments, make_provenances, refer_to_assessment
from serving.fhir.screening import require_own
from serving.fhir.searching import MOST_RESULTS, Dates, Reference, read_dates, read_patient
from serving.http.parameters import AnonymizedId
from serving.http.strict_json import StrictJsonRoute
from serving.individuals.rights import list_accesses
from serving.predictions.viewing import record_viewing
from serving.reviews.queue import find_prediction

router = APIRouter(
    tags=["EHR: FHIR R4"],
    prefix="/fhir",
    route_class=StrictJsonRoute,
    default_response_class=FhirResponse,
)


TARGET = re.compile(r"(?:.*/)?RiskAssessment/(?P<id>[0-9a-fA-F-]{36})")


@router.get("/AuditEvent", responses=READ_PROBLEMS)
def search_audit_events(
    patient: Annotated[AnonymizedId, Query(description="The person's pseudonym.")],
    trail: Trail,
    _reader: AccessHistoryReader,
    session: DbSession,
    services: WorkerServices,
    date: Dates = [],  # noqa: B006 (FastAPI copies it)
) -> Response:
    """Return who saw or changed a person's record, latest first (IHE BALP)."""
    rows = list_accesses(session, patient, None, MOST_RESULTS, read_dates(date))
    trail.record(Event(AUDIT_ACCESS, "search_audit_events", patient))
    events = [make_audit_event(row, patient) for row in rows]
    return FhirResponse(make_search_set(events, services.settings.public_url, "AuditEvent"))


@router.get("/Consent", responses=READ_PROBLEMS)
def search_consents(
    caller: ConsentReader,
    trail: Trail,
    session: DbSession,
    services: WorkerServices,
    patient: Reference = None,
) -> Response:
    """Return a person's consents, oldest first; those withdrawn or expired are `inactive`."""
    anonymized_id = read_patient(patient, caller, services.settings)
    trail.record(Event(CONSENT_VIEW, "search_consents", anonymized_id, ["consent"]))
    now, subject = datetime.now(UTC), make_subject(anonymized_id)
    consents = [make_consent(row, subject, now) for row in list_consents(session, anonymized_id)]
    return FhirResponse(make_search_set(consents, services.settings.public_url, "Consent"))


@router.get("/Provenance", responses=READ_PROBLEMS)
def search_provenance(
    caller: ProvenanceReader,
    trail: Trail,
    session: DbSession,
    services: WorkerServices,
    target: Annotated[str, Query(max_length=300, description="`RiskAssessment/<id>`")],
) -> Response:
    """Return which release computed an assessment, and who amended it, oldest first."""
    prediction = find_prediction(session, read_target(target))
    require_own(prediction, caller)
    record_viewing(trail, prediction, "search_provenance")
    reference = refer_to_assessment(str(prediction.id), f"RiskAssessment/{prediction.id}")
    columns = describe_row(prediction)
    listed = make_provenances(columns, list_amendments(session, prediction.id), reference)
    return FhirResponse(make_search_set(listed, services.settings.public_url, "Provenance"))


def read_target(target: str) -> UUID:
    """Return the prediction that `RiskAssessment/<id>` refers to; raises UnusableError."""
    match = TARGET.fullmatch(target)
    try:
        return UUID(match["id"] if match else "")
    except ValueError:
        raise UnusableError("target: does not name a RiskAssessment") from None
