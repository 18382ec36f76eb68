"""What drift is measured on, screenings, and what is kept of it, summaries."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Float, Select, cast, func, select
from sqlalchemy.orm import Session

from serving.database.tables import DriftReport, Prediction

#: Label of mhras_drift_score: what is compared with the training data.
SCREENINGS = "screenings"


@dataclass(frozen=True)
class ScreenedSample:
    """Screenings of a window: how many there were, and inputs and scores of some of them.

    `scores` are those of one release, `features` of whichever answered.
    """

    screened: int
    features: list[dict[str, Any]]
    scores: list[float]


def sample_screenings(
    session: Session, begin: datetime, end: datetime, version: int, rows: int
) -> ScreenedSample:
    """Draw about `rows` screenings of a window that a release answered, each as likely.

    Drawn in the database, so memory does not grow with the window.
    """
    inputs = Prediction.inputs["features"]
    answered = (
        Prediction.created_at >= begin,
        Prediction.created_at < end,
        inputs.is_not(None),
    )
    screened = session.scalar(select(func.count()).where(*answered)) or 0
    drawn = select(inputs, Prediction.probability, Prediction.release_version).where(*answered)
    found = session.execute(_thin(drawn, screened, rows)).all()
    return ScreenedSample(
        screened=screened,
        features=[one[0] for one in found],
        scores=[one.probability for one in found if one.release_version == str(version)],
    )


def _thin(drawn: Select[Any], screened: int, rows: int) -> Select[Any]:
    if screened <= rows:
        return drawn
    # No limit on top: it would always leave out the same end of the table.
    return drawn.where(func.random() < cast(rows / screened, Float))


def find_newest(session: Session) -> DriftReport | None:
    return next(iter(list_newest(session, 1)), None)


def list_newest(session: Session, count: int) -> Sequence[DriftReport]:
    """Return the newest summaries, newest first."""
    newest = select(DriftReport).order_by(DriftReport.created_at.desc()).limit(count)
    return session.scalars(newest).all()
