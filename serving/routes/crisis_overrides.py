"""POST /screen/{prediction_id}/crisis-override."""

from uuid import UUID

from fastapi import APIRouter, Request

from monitoring.metrics import ALERTS_TRIGGERED, CRISIS_OVERRIDES
from serving import audit
from serving.audit.trail import CRISIS_OVERRIDE
from serving.database.sessions import run_after_commit
from serving.dependencies import CrisisOverrider, DbSession, Trail, WorkerServices
from serving.errors import FeatureDisabledError
from serving.http.guidance import GUIDANCE
from serving.http.problems import GUARDED, describe_problems
from serving.http.strict_json import StrictJsonRoute
from serving.reviews.answers import OverrideAnswer, OverrideBody
from serving.reviews.crisis_overrides import override
from serving.reviews.queue import find_prediction

router = APIRouter(tags=["screening"], route_class=StrictJsonRoute)

ACTION = "override_crisis"


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
    """Put a screening into the top band and before a person, whatever the models said."""
    if not services.settings.enable_crisis_override:
        raise FeatureDisabledError(
            "ENABLE_CRISIS_OVERRIDE is off; follow your service's own crisis procedure",
            principal,
            ACTION,
        )
    prediction = find_prediction(session, prediction_id)
    request.state.anonymized_id = prediction.anonymized_id
    made = override(session, prediction, principal, body.comment)
    details = {"prediction_id": str(prediction_id), "review_id": str(made.review_id)}
    individual = prediction.anonymized_id
    event = audit.Event(CRISIS_OVERRIDE, ACTION, individual, ["prediction"], details)
    trail.record(event)
    run_after_commit(session, count_override)
    return OverrideAnswer(
        prediction_id=prediction_id,
        review_id=made.review_id,
        created_at=made.created_at,
        user_id=made.user_id,
        crisis_guidance=GUIDANCE,
    )


def count_override() -> None:
    CRISIS_OVERRIDES.inc()
    ALERTS_TRIGGERED.labels("clinician").inc()
