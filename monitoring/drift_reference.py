"""What a release's training data looked like, column by column, without any row of it.

A summary is shares of missing values, and either the values a column takes with their shares or
evenly spaced quantiles. Drift tests look at one column at a time, so nothing is lost to them
that rows would hold, and no person can be identified in it.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from monitoring.drift_bounds import UNKNOWN_DISTANCE, UNKNOWN_MISSING, Bounds, DriftNull

#: Artifact of a training run.
REFERENCE_FILE = "drift/reference.json"
#: Of the release's probability among the features' summaries.
SCORE = "probability"

#: A column with no more distinct values than this is compared by the shares of its values.
MAX_VALUES = 12
#: A value of fewer rows than this is left out: it could be one person's.
MIN_ROWS = 10
#: The outermost quantiles stand for the 1 in 400 rows beyond them; extremes are never kept.
QUANTILES = 200
RANKS = (np.arange(QUANTILES) + 0.5) / QUANTILES

Values = NDArray[np.floating]


class ColumnSummary(BaseModel):
    """One column: `values` with `shares` of the known rows, or `quantiles` of them, at RANKS."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    missing: float
    values: list[float] = []
    shares: list[float] = []
    quantiles: list[float] = []

    @property
    def is_discrete(self) -> bool:
        return bool(self.values)

    @property
    def is_known(self) -> bool:
        return bool(self.values or self.quantiles)


class DriftReference(BaseModel):
    """Every feature and the score of a release's training data, and what each feature weighs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    columns: dict[str, ColumnSummary]
    score: ColumnSummary
    #: Sums to one over all features.
    importance: dict[str, float]
    #: Attribute -> group -> its share of the training rows.
    groups: dict[str, dict[str, float]] = {}
    #: Individuals of the rows.
    people: int = 0
    #: Column -> the modality it belongs to, by which alarms are raised.
    modalities: dict[str, str] = {}
    #: Bounds of windows without drift; releases from before have none.
    null: DriftNull | None = None
    #: The same for screenings of a batch, which read what is stored and no answers of the day.
    batches: "DriftReference | None" = None

    def find_bounds(self, column: str, people: int) -> Bounds:
        """Return what a column stays below in a window of so many people without drift."""
        if self.null is None or column not in self.null.distances:
            return Bounds(distance=UNKNOWN_DISTANCE, missing=UNKNOWN_MISSING)
        return self.null.find_bounds(column, people, self.people)


def summarise(values: Values) -> ColumnSummary:
    """Summarise a column; NaN is missing, and infinite values count as missing too."""
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    missing = 1 - len(finite) / max(len(values), 1)
    distinct, counts = np.unique(finite, return_counts=True)
    if len(distinct) > MAX_VALUES:
        return ColumnSummary(missing=missing, quantiles=np.quantile(finite, RANKS).tolist())
    enough = counts >= MIN_ROWS
    kept = counts[enough]
    return ColumnSummary(
        missing=missing,
        values=distinct[enough].tolist(),
        shares=(kept / max(kept.sum(), 1)).tolist(),
    )


def make_reference(
    features: Mapping[str, Values],
    scores: Values,
    importance: Mapping[str, float],
    groups: Mapping[str, Mapping[str, float]] | None = None,
) -> DriftReference:
    """Summarise a release's training rows and the scores of rows it had not seen."""
    total = sum(importance.get(name, 0.0) for name in features)
    even = 1 / max(len(features), 1)
    return DriftReference(
        rows=len(next(iter(features.values()), ())),
        columns={name: summarise(values) for name, values in features.items()},
        score=summarise(scores),
        importance={
            name: importance.get(name, 0.0) / total if total else even for name in features
        },
        groups={name: dict(shares) for name, shares in (groups or {}).items()},
    )


def measure_spread(drawn: NDArray[np.float64]) -> float:
    """Return the standard deviation by which Evidently divides a distance from known values."""
    return max(float(np.std(drawn)), 0.001) if drawn.size else 1.0


def find_limits(drawn: NDArray[np.float64]) -> tuple[float, float]:
    """Return where values stop to count by how far off they lie, given the known reference values.

    They are a standard deviation beyond the lowest and the highest. A few values far out make up
    most of a distance between windows of a heavy-tailed column, and a summary has no such values.
    """
    spread = measure_spread(drawn)
    return float(drawn.min()) - spread, float(drawn.max()) + spread


def count_known(summary: ColumnSummary, rows: int) -> int:
    """Return how many of so many drawn rows have a value."""
    return round(rows * (1 - summary.missing)) if summary.is_known else 0


def draw(summary: ColumnSummary, rows: int) -> NDArray[np.float64]:
    """Return a column of `rows` values distributed as in the summary, missing ones last.

    Float64 [rows].
    """
    drawn = np.full(rows, np.nan)
    known_rows = count_known(summary, rows)
    ranks = (np.arange(known_rows) + 0.5) / max(known_rows, 1)
    if summary.is_discrete:
        places = np.searchsorted(np.cumsum(summary.shares), ranks)
        drawn[:known_rows] = np.asarray(summary.values)[np.minimum(places, len(summary.values) - 1)]
    elif known_rows:
        drawn[:known_rows] = np.interp(ranks, RANKS, summary.quantiles)
    return drawn
