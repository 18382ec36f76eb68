"""GET /predictions/{id}: an answer again; its passport: everything that led to it."""

from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, Field

from serving.dependencies import (
    DbSession,
    PassportReader,
    PredictionReader,
    Trail,
    WorkerServices,
)
from serving.http.problems import GUARDED, describe_problems
from serving.predictions.passport import Addresses, Passport
from serving.predictions.passport_access import view_passport
from serving.predictions.viewing import record_viewing
from serving.reviews.crisis_overrides import find_override
from serving.reviews.queue import find_prediction
from serving.scoring.estimate import Band
from serving.screening.answers import ScreeningAnswer

router = APIRouter(tags=["prediction"])


class KnownPrediction(BaseModel):
    """An answer as it was given, and the band it stands in now."""

    answer: ScreeningAnswer
    risk_band: Band = Field(description="The top band after a clinician's override.")
    crisis_override: bool
    requested_by: str


@router.get("/predictions/{prediction_id}", responses=describe_problems(*GUARDED, 404))
def get_prediction(
    prediction_id: UUID, trail: Trail, _reader: PredictionReader, session: DbSession
) -> KnownPrediction:
    """Return an earlier answer."""
    prediction = find_prediction(session, prediction_id)
    overridden = find_override(session, prediction_id) is not None
    record_viewing(trail, prediction, "view_prediction")
    answer = ScreeningAnswer.model_validate(prediction.answer)
    return KnownPrediction(
        answer=answer,
        risk_band=Band.CRITICAL if overridden else answer.risk_band,
        crisis_override=overridden,
        requested_by=prediction.user_id,
    )


@router.get("/predictions/{prediction_id}/passport", responses=describe_problems(*GUARDED, 404))
def get_passport(
    prediction_id: UUID,
    trail: Trail,
    reader: PassportReader,
    session: DbSession,
    services: WorkerServices,
) -> Passport:
    """Return what led to a prediction and its outcome, so far as the role may see it."""
    prediction = find_prediction(session, prediction_id)
    addresses = Addresses.read(services.settings)
    return view_passport(session, trail, prediction, services.manifests, addresses, reader.role)
