"""POST /screen/{prediction_id}/crisis-override."""

from uuid import UUID

from fastapi import APIRouter, Request

from serving.dependencies import CrisisOverrider, DbSession, Trail, WorkerServices
from serving.http.guidance import choose_guidance
from serving.http.problems import GUARDED, describe_problems
from serving.http.strict_json import StrictJsonRoute
from serving.reviews import actions
from serving.reviews.answers import OverrideAnswer, OverrideBody
from serving.reviews.queue import find_prediction

router = APIRouter(tags=["screening"], route_class=StrictJsonRoute)


@router.post("/screen/{prediction_id}/crisis-override", responses=describe_problems(*GUARDED, 404))
def override_crisis(
    prediction_id: UUID,
    body: OverrideBody,
    request: Request,
    trail: Trail,
    principal: CrisisOverrider,
    session: DbSession,
    services: WorkerServices,
) -> OverrideAnswer:
    """Put a screening into the top band and the review queue, regardless of its score."""
    prediction = find_prediction(session, prediction_id)
    request.state.anonymized_id = prediction.anonymized_id
    enabled = services.settings.enable_crisis_override
    made = actions.override_crisis(session, trail, prediction, principal, body.comment, enabled)
    return OverrideAnswer(
        prediction_id=prediction_id,
        review_id=made.review_id,
        created_at=made.created_at,
        user_id=made.user_id,
        crisis_guidance=choose_guidance(services.settings),
    )
