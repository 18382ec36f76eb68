"""GET /drift: how far what is screened has moved from what the release was trained on."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from serving.dependencies import DbSession, DriftReader, WorkerServices
from serving.http.problems import GUARDED, describe_problems
from serving.predictions.drift_records import list_newest

router = APIRouter(tags=["service"])


class DriftSummary(BaseModel):
    """One report; the whole of it is an artifact of its MLflow run."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    created_at: datetime
    release_version: int
    window_begin: datetime
    window_end: datetime
    rows_screened: int = Field(description="Screenings of the window.")
    rows_tested: int = Field(description="The random sample of them that was tested.")
    dataset: str = Field(description="What was compared: requests or batches.")
    alarms: list[str] = Field(
        description="Modalities that differ more than windows without drift do."
    )
    drift_score: float = Field(description="Share of drifted features, by importance.")
    drifted_share: float = Field(description="Share of drifted features, each counted alike.")
    missing_drifted_share: float
    scores_drifted: bool | None = Field(description="null: the release has answered too few.")
    threshold: float = Field(description="Drift score from which an alarm is raised.")
    outcomes: dict[str, Any] = Field(
        description="Discrimination and calibration in use; is_known is false on too few labels."
    )
    run_id: str


class DriftReportAnswer(DriftSummary):
    columns: dict[str, Any] = Field(description="By feature: test, value, missing shares.")
    groups: list[dict[str, Any]] = Field(
        description="By sex, age band and ethnicity: share now and at training, performance."
    )


class DriftAnswer(BaseModel):
    enabled: bool
    threshold: float
    latest: DriftReportAnswer | None = Field(description="null: nothing was compared yet.")
    history: list[DriftSummary] = Field(description="Newest first.")


@router.get("/drift", responses=describe_problems(*GUARDED))
def get_drift(
    _reader: DriftReader,
    session: DbSession,
    services: WorkerServices,
    count: Annotated[int, Query(ge=1, le=100)] = 10,
) -> DriftAnswer:
    """Return the newest drift reports; they hold no individual."""
    newest = list_newest(session, count)
    return DriftAnswer(
        enabled=services.settings.enable_drift_monitoring,
        threshold=services.settings.drift_threshold,
        latest=DriftReportAnswer.model_validate(newest[0]) if newest else None,
        history=[DriftSummary.model_validate(report) for report in newest],
    )
