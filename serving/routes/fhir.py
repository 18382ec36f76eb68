"""FHIR R4: RiskAssessments out, QuestionnaireResponses and transactions in."""

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any
from urllib.parse import parse_qs
from uuid import UUID

from fastapi import APIRouter, Request
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from serving.audit import Event, record
from serving.audit.trail import PREDICTION_VIEW
from serving.database.rows import describe_row
from serving.database.sessions import open_session
from serving.database.tables import Prediction
from serving.dependencies import (
    AssessmentReader,
    DbSession,
    ResponseSender,
    Trail,
    WorkerServices,
)
from serving.errors import UnusableError
from serving.fhir.bundles import Entry, answer_transaction, read_entries
from serving.fhir.capability import make_capability_statement
from serving.fhir.elements import Resource, make_search_set, make_subject
from serving.fhir.operation_outcomes import READ_PROBLEMS, FhirResponse, describe_outcomes
from serving.fhir.reading import choose_current, read_surveys
from serving.fhir.risk_assessments import make_risk_assessment
from serving.fhir.screening import (
    EhrCaller,
    require_one_person,
    require_own,
    require_readable,
    screen_surveys,
)
from serving.fhir.searching import (
    MOST_RESULTS,
    Dates,
    PatientSearch,
    Reference,
    list_amended,
    read_dates,
    read_patient,
    search_predictions,
)
from serving.http.strict_json import StrictJsonRoute
from serving.predictions.viewing import record_viewing
from serving.reviews.queue import find_prediction
from serving.services import Services
from serving.settings import Settings

router = APIRouter(
    tags=["EHR: FHIR R4"],
    prefix="/fhir",
    route_class=StrictJsonRoute,
    default_response_class=FhirResponse,
)

SENT_PROBLEMS = describe_outcomes(401, 403, 404, 409, 413, 422, 429, 500, 503, 504)
FORM = "application/x-www-form-urlencoded"


@router.get("/metadata")
def get_metadata(services: WorkerServices) -> Response:
    """Return what this server can do (CapabilityStatement)."""
    today = datetime.now(UTC).date()
    return FhirResponse(
        make_capability_statement(version("mhras"), services.settings.public_url, today)
    )


@router.get("/RiskAssessment/{prediction_id}", responses=READ_PROBLEMS)
def read_risk_assessment(
    prediction_id: UUID, caller: AssessmentReader, trail: Trail, session: DbSession
) -> Response:
    """Return one prediction as a RiskAssessment; `amended` after a clinician's override."""
    prediction = find_prediction(session, prediction_id)
    require_own(prediction, caller)
    (resource,) = make_assessments(session, [prediction])
    record_viewing(trail, prediction, "read_risk_assessment")
    return FhirResponse(resource)


@router.get("/RiskAssessment", responses=READ_PROBLEMS)
def search_risk_assessments(
    caller: AssessmentReader,
    session: DbSession,
    services: WorkerServices,
    subject: Reference = None,
    patient: Reference = None,
    date: Dates = [],  # noqa: B006 (FastAPI copies it)
) -> Response:
    """Search predictions of one person, latest first, by the caller's own id or by pseudonym.

    `POST /fhir/RiskAssessment/_search` keeps the id out of addresses and their logs.
    """
    wanted = read_patient(subject or patient, caller, services.settings)
    return search(session, caller, PatientSearch(wanted, *read_dates(date)), services.settings)


@router.post("/RiskAssessment/_search", responses=READ_PROBLEMS)
async def search_risk_assessments_by_form(
    request: Request, caller: AssessmentReader, services: WorkerServices
) -> Response:
    """Search as GET does, with the parameters in the body."""
    if request.headers.get("Content-Type", "").partition(";")[0].strip() != FORM:
        raise UnusableError(f"a search is sent as {FORM}")
    try:
        fields = parse_qs((await request.body()).decode(), max_num_fields=10, strict_parsing=True)
    except ValueError:
        raise UnusableError("the search cannot be read") from None
    reference = (fields.get("subject") or fields.get("patient") or [""])[0]
    wanted = read_patient(reference, caller, services.settings)
    patient_search = PatientSearch(wanted, *read_dates(fields.get("date", [])))
    return await run_in_threadpool(search_apart, services, caller, patient_search)


def search_apart(services: Services, caller: EhrCaller, wanted: PatientSearch) -> Response:
    with open_session(services.engine) as session:
        return search(session, caller, wanted, services.settings)


def search(
    session: Session, caller: EhrCaller, wanted: PatientSearch, settings: Settings
) -> Response:
    predictions = search_predictions(session, wanted, MOST_RESULTS)
    details = {"results": len(predictions)}
    event = Event(PREDICTION_VIEW, "search_risk_assessments", wanted.anonymized_id, (), details)
    record(session, caller.principal, caller.request_id, event)
    assessments = make_assessments(session, predictions)
    return FhirResponse(make_search_set(assessments, settings.public_url, "RiskAssessment"))


def make_assessments(session: Session, predictions: Sequence[Prediction]) -> list[Resource]:
    amended = list_amended(session, [prediction.id for prediction in predictions])
    return [
        make_risk_assessment(
            describe_row(prediction),
            make_subject(prediction.anonymized_id),
            prediction.id in amended,
        )
        for prediction in predictions
    ]


@router.post("/QuestionnaireResponse", status_code=201, responses=SENT_PROBLEMS)
async def create_questionnaire_response(
    body: dict[str, Any], caller: ResponseSender, services: WorkerServices
) -> Response:
    """Screen a person on a PHQ-9, GAD-7 or WHO-5; returns the RiskAssessment.

    Repeating a response with the same identifier within 24 hours returns the original result.
    """
    if body.get("resourceType") != "QuestionnaireResponse":
        raise UnusableError("resourceType is not QuestionnaireResponse")
    prediction = await screen_entries([Entry(body)], caller, services)
    basis = [{"reference": f"QuestionnaireResponse/{body['id']}"}] if body.get("id") else []
    resource = make_risk_assessment(prediction, body["subject"], basis=basis)
    return FhirResponse(resource, 201, {"Location": locate(resource, services.settings)})


@router.post("", responses=SENT_PROBLEMS)
async def process_transaction(
    body: dict[str, Any], caller: ResponseSender, services: WorkerServices
) -> Response:
    """Screen one person on a transaction of Patient, QuestionnaireResponses and Observations."""
    entries = read_entries(body)
    prediction = await screen_entries(entries, caller, services)
    resource = make_risk_assessment(prediction, make_subject(prediction["anonymized_id"]))
    return FhirResponse(answer_transaction(entries, resource, locate(resource, services.settings)))


async def screen_entries(
    entries: Sequence[Entry], caller: EhrCaller, services: Services
) -> dict[str, Any]:
    """Return the prediction of the one person in the resources, by column."""
    if caller.client is not None:
        services.rates.admit(caller.principal.user_id)
    settings = services.settings
    urls = {entry.full_url: entry.name for entry in entries if entry.full_url and entry.name}
    findings = read_surveys((entry.resource for entry in entries), settings.zone, urls)
    require_readable(findings)
    person = caller.hash_patient(require_one_person(findings.surveys, None), settings)
    current = choose_current(findings.surveys, datetime.now(UTC))
    name = next((entry.identifier for entry in entries if entry.identifier), "")
    given = await screen_surveys(current, person, caller, services.screening, name)
    return await run_in_threadpool(read_prediction, services, given.prediction_id)


def read_prediction(services: Services, prediction_id: UUID) -> dict[str, Any]:
    with open_session(services.engine) as session:
        return describe_row(find_prediction(session, prediction_id))


def locate(resource: Resource, settings: Settings) -> str:
    return f"{settings.public_url}/fhir/RiskAssessment/{resource['id']}"
