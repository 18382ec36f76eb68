"""What drift is measured on, screenings, and what is kept of it, summaries."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Float, Select, cast, func, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from feature_repo.outcomes import ADVERSE_COURSE
from serving.database.json_numbers import read_number
from serving.database.tables import DriftReport, Prediction, PredictionLabel

Dataset = Literal["requests", "batches"]
#: What is compared with the training data, each with what it would read: screenings on request,
#: with answers of the day, and those of batches, on what is stored. Labels of mhras_drift_score.
DATASETS: tuple[Dataset, ...] = ("requests", "batches")
#: Label of outcomes, which are of both.
SCREENINGS = "screenings"


@dataclass(frozen=True)
class ScreenedSample:
    """Screenings of a window: how many there were, and inputs and scores of some of them.

    `scores` are those of one release, `features` of whichever answered.
    """

    screened: int
    features: list[dict[str, Any]]
    scores: list[float]
    #: The individual of each row of `features`.
    individuals: list[str]


@dataclass(frozen=True)
class LabelledSample:
    """Screenings of a release with an outcome: person, age, estimate, and whether it occurred."""

    individuals: list[str]
    ages: list[float | None]
    probabilities: list[float]
    occurred: list[bool]


def sample_screenings(
    session: Session, begin: datetime, end: datetime, version: int, rows: int, dataset: Dataset
) -> ScreenedSample:
    """Draw about `rows` screenings of one kind and window, each as likely.

    Drawn in the database, so memory does not grow with the window.
    """
    inputs = Prediction.inputs["features"]
    answered = (
        Prediction.created_at >= begin,
        Prediction.created_at < end,
        inputs.is_not(None),
        Prediction.batch.is_(None) if dataset == "requests" else Prediction.batch.is_not(None),
    )
    screened = session.scalar(select(func.count()).where(*answered)) or 0
    drawn = select(
        inputs, Prediction.probability, Prediction.release_version, Prediction.anonymized_id
    ).where(*answered)
    drawn_rows = session.execute(_thin(drawn, screened, rows)).all()
    return ScreenedSample(
        screened=screened,
        features=[row[0] for row in drawn_rows],
        scores=[row.probability for row in drawn_rows if row.release_version == str(version)],
        individuals=[row.anonymized_id for row in drawn_rows],
    )


def sample_outcomes(session: Session, since: datetime, version: int, rows: int) -> LabelledSample:
    """Draw about `rows` screenings by a release since an instant whose outcome is known."""
    labelled = (
        Prediction.created_at >= since,
        Prediction.release_version == str(version),
        Prediction.probability.is_not(None),
        PredictionLabel.prediction_id == Prediction.id,
        PredictionLabel.kind == ADVERSE_COURSE.name,
    )
    count = session.scalar(select(func.count()).where(*labelled)) or 0
    age: Any = read_number(Prediction.inputs["features"]["age"])
    drawn = select(
        Prediction.anonymized_id, age, Prediction.probability, PredictionLabel.occurred
    ).where(*labelled)
    drawn_rows = session.execute(_thin(drawn, count, rows)).all()
    people, ages, probabilities, occurred = (
        zip(*drawn_rows, strict=True) if drawn_rows else ([],) * 4
    )
    return LabelledSample(list(people), list(ages), list(probabilities), list(occurred))


def _thin(drawn: Select[Any], screened: int, rows: int) -> Select[Any]:
    if screened <= rows:
        return drawn
    # No limit on top: it would always leave out the same end of the table.
    return drawn.where(func.random() < cast(rows / screened, Float))


def list_latest(session: Session) -> list[DriftReport]:
    """Return the newest summary of each of DATASETS, the newest of all first."""
    latest = select(DriftReport).where(DriftReport.dataset.in_(DATASETS))
    latest = latest.ext(distinct_on(DriftReport.dataset))
    ordered = latest.order_by(DriftReport.dataset, DriftReport.created_at.desc())
    reports = session.scalars(ordered).all()
    return sorted(reports, key=lambda report: report.created_at, reverse=True)


def list_newest(session: Session, count: int) -> Sequence[DriftReport]:
    """Return the newest summaries, newest first."""
    newest = select(DriftReport).order_by(DriftReport.created_at.desc()).limit(count)
    return session.scalars(newest).all()
