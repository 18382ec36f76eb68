"""CDS Hooks for EHRs: discovery, the patient-view hook, and feedback on its cards."""

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel

from serving.dependencies import DbSession, HookCaller, Trail, WorkerServices, require_ehr_clients
from serving.errors import NotFoundError
from serving.fhir.feedback import FeedbackRequest, apply_feedback
from serving.fhir.hooks import SERVICE_ID, HookRequest, describe_services
from serving.fhir.operation_outcomes import describe_outcomes
from serving.fhir.patient_view import answer_hook
from serving.http.strict_json import StrictJsonRoute

router = APIRouter(tags=["EHR: CDS Hooks"], prefix="/cds-services", route_class=StrictJsonRoute)


class CardsAnswer(BaseModel):
    """Cards of a hook, as CDS Hooks defines them; an empty list where none interrupts."""

    cards: list[dict[str, Any]]


class FeedbackAnswer(BaseModel):
    recorded: int
    unknown: int


@router.get("", responses=describe_outcomes(404))
def discover_services(services: WorkerServices) -> dict[str, Any]:
    """List the CDS services with the data they ask EHRs to prefetch."""
    require_ehr_clients(services)
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
    body: FeedbackRequest, caller: HookCaller, trail: Trail, session: DbSession
) -> FeedbackAnswer:
    """Record what clinicians did with cards; entries of unknown cards are counted.

    Returns 404 where no card of the request is known.
    """
    recorded = [apply_feedback(session, trail, caller.principal, entry) for entry in body.feedback]
    if not any(recorded):
        raise NotFoundError("none of the cards is known; their screenings may have been erased")
    return FeedbackAnswer(recorded=sum(recorded), unknown=len(recorded) - sum(recorded))
