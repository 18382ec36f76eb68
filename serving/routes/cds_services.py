"""CDS Hooks for EHRs: discovery, the patient-view hook, and feedback on its cards."""

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel
from sqlalchemy.orm import Session

from serving.audit import Event, record
from serving.dependencies import DbSession, HookCaller, WorkerServices
from serving.errors import NotFoundError
from serving.fhir.feedback import FeedbackRequest, apply_feedback
from serving.fhir.hooks import SERVICE_ID, HookRequest, describe_services
from serving.fhir.operation_outcomes import describe_outcomes
from serving.fhir.patient_view import answer_hook
from serving.fhir.screening import EhrCaller
from serving.http.strict_json import StrictJsonRoute

router = APIRouter(tags=["EHR: CDS Hooks"], prefix="/cds-services", route_class=StrictJsonRoute)


class CardsAnswer(BaseModel):
    """Cards of a hook, as CDS Hooks defines them; an empty list where none interrupts."""

    cards: list[dict[str, Any]]


class FeedbackAnswer(BaseModel):
    recorded: int
    unknown: int


class CallerTrail:
    """The audit trail of an EHR's call."""

    def __init__(self, session: Session, caller: EhrCaller) -> None:
        self._session, self._caller = session, caller

    def record(self, event: Event) -> None:
        record(self._session, self._caller.principal, self._caller.request_id, event)


@router.get("", responses=describe_outcomes(404))
def discover_services(services: WorkerServices) -> dict[str, Any]:
    """List the CDS services with the data they ask EHRs to prefetch."""
    if not services.ehr_clients.clients:
        raise NotFoundError("EHR clients are switched off: EHR_CLIENTS_FILE is not set")
    return describe_services()


@router.post(
    f"/{SERVICE_ID}",
    response_model=CardsAnswer,
    responses=describe_outcomes(401, 403, 404, 409, 412, 422, 429, 500, 503, 504),
)
async def review_patient(
    body: HookRequest, request: Request, caller: HookCaller, services: WorkerServices
) -> dict[str, Any]:
    """Screen the patient on prefetched answers, or show the latest priority, as cards."""
    services.rates.admit(f"{caller.principal.user_id} {body.context.userId}")
    request.state.log_message = "hook answered"
    return {"cards": await answer_hook(body, caller, services.screening)}


@router.post(
    f"/{SERVICE_ID}/feedback",
    responses=describe_outcomes(401, 403, 404, 422, 429, 500, 503, 504),
)
def receive_feedback(
    body: FeedbackRequest, caller: HookCaller, session: DbSession
) -> FeedbackAnswer:
    """Record what clinicians did with cards; entries of unknown cards are counted.

    Returns 404 where no card of the request is known.
    """
    trail = CallerTrail(session, caller)
    known = [apply_feedback(session, trail, caller.principal, one) for one in body.feedback]
    if not any(known):
        raise NotFoundError("none of the cards is known; their screenings may have been erased")
    return FeedbackAnswer(recorded=sum(known), unknown=len(known) - sum(known))
