"""What counts as drift: tests by Evidently, column by column, and one number of them all.

A column has drifted when its known values, or its missing ones, differ from the training more than
in windows without drift (`drift_null.py`). A modality whose column has drifted raises an alarm. The
drift score is the share of drifted columns, each weighed by its importance to the release: how much
of what the release looks at has moved. ADR 17, 71.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from monitoring.drift_bounds import Bounds
from monitoring.drift_null import Distance, keep_known
from monitoring.drift_reference import (
    SCORE,
    ColumnSummary,
    DriftReference,
    count_known,
    draw,
    find_limits,
)

if TYPE_CHECKING:
    from evidently.core.report import Snapshot

#: Rows of either side that are tested; distances no longer change with more, the time does.
SAMPLE_ROWS = 5_000
#: Fewer known values of a column say nothing about how they are distributed.
MIN_KNOWN = 100
METHOD = "wasserstein"
#: The modality of columns of a release whose reference names none.
ALL = "features"


@dataclass(frozen=True)
class ColumnDrift:
    """One column: its test (None where too little is known) and its missing values.

    `value` is the distance of its known values in standard deviations of the training; `threshold`
    and `missing_threshold` are what it and the change of its missing share stay below without
    drift.
    """

    column: str
    modality: str
    importance: float
    method: str | None
    threshold: float | None
    value: float | None
    values_drifted: bool
    missing_reference: float
    missing_current: float
    missing_threshold: float
    missing_drifted: bool
    #: Values that are not numbers: a fault of their source.
    infinite: int

    @property
    def drifted(self) -> bool:
        return self.values_drifted or self.missing_drifted or self.infinite > 0

    @property
    def strength(self) -> float:
        """Return how far it lies beyond what it stays below without drift; 1 is just there."""
        distance = (self.value or 0.0) / (self.threshold or 1.0)
        missing = abs(self.missing_current - self.missing_reference) / self.missing_threshold
        return max(distance, missing)


@dataclass(frozen=True)
class DriftResult:
    """Drift of features and score, most important column first."""

    columns: list[ColumnDrift]
    score: ColumnDrift | None
    rows_current: int
    snapshot: "Snapshot | None"

    @property
    def alarms(self) -> list[str]:
        """Return the modalities, SCORE among them, of which a column has drifted."""
        tested = [*self.columns, *([] if self.score is None else [self.score])]
        return sorted({column.modality for column in tested if column.drifted})

    @property
    def drift_score(self) -> float:
        return float(sum(column.importance for column in self.columns if column.drifted))

    @property
    def drifted_share(self) -> float:
        return sum(column.drifted for column in self.columns) / max(len(self.columns), 1)

    @property
    def missing_share(self) -> float:
        return sum(column.missing_drifted for column in self.columns) / max(len(self.columns), 1)


def measure_drift(
    reference: DriftReference, features: pd.DataFrame, scores: pd.Series, people: int
) -> DriftResult:
    """Compare what was screened with a release's training data.

    `features` has a column per feature (one that is absent counts as missing everywhere),
    `scores` the release's probabilities; either may be of fewer rows, or of none. `people` is the
    number of individuals they are of.
    """
    sampled = features.head(SAMPLE_ROWS)
    current = {name: _take(sampled, name) for name in reference.columns}
    current[SCORE] = scores.head(SAMPLE_ROWS).to_numpy(np.float64)
    summaries = reference.columns | {SCORE: reference.score}
    bounds = {name: reference.find_bounds(name, people) for name in current}
    tested = [name for name, values in current.items() if can_be_tested(summaries[name], values)]
    snapshot = run_report(summaries, current, tested, bounds) if tested else None
    drift_values = read_values(snapshot) if snapshot else {}
    columns = {
        name: describe_column(name, reference, values, drift_values.get(name), bounds[name])
        for name, values in current.items()
    }
    score = columns.pop(SCORE)
    ordered = sorted(columns.values(), key=lambda column: column.importance, reverse=True)
    return DriftResult(ordered, score if score.method else None, len(sampled), snapshot)


def _take(features: pd.DataFrame, name: str) -> np.ndarray:
    if name not in features:
        return np.full(len(features), np.nan)
    return features[name].to_numpy(np.float64)


def can_be_tested(summary: ColumnSummary, current: np.ndarray) -> bool:
    """Return True if enough is known of a column on both sides.

    Evidently stops at a column without a value, or with an infinite one: neither reaches it.
    """
    known = int(np.isfinite(current).sum())
    return count_known(summary, SAMPLE_ROWS) > 0 and known >= MIN_KNOWN


def run_report(
    summaries: dict[str, ColumnSummary],
    current: dict[str, np.ndarray],
    tested: list[str],
    bounds: dict[str, Bounds],
) -> "Snapshot":
    """Run Evidently over the columns that can be tested, the farthest beyond its bound first.

    Not by its preset: that tests each column three times, draws it twice, and calls the window
    drifted only where half of the columns are, whatever they weigh.
    """
    # Imported late: Evidently takes seconds to import, and the tests of definitions need none.
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    definition = DataDefinition(numerical_columns=tested)
    drawn = {name: draw(summaries[name], SAMPLE_ROWS) for name in tested}
    limited = {name: limit_values(current[name], drawn[name]) for name in tested}
    now, then = (
        Dataset.from_pandas(_make_frame(side), data_definition=definition)
        for side in (limited, drawn)
    )
    ordered = order_columns(summaries, current, tested, bounds)
    tests = [
        ValueDrift(column=name, method=METHOD, threshold=bounds[name].distance) for name in ordered
    ]
    return Report(tests).run(now, then)


def order_columns(
    summaries: dict[str, ColumnSummary],
    current: dict[str, np.ndarray],
    tested: list[str],
    bounds: dict[str, Bounds],
) -> list[str]:
    """Return the tested columns, the farthest beyond its bound first.

    Before Evidently measures them: its page follows the order in which it is asked.
    """
    beyond = {
        name: Distance(summaries[name]).measure(np.sort(keep_known(current[name])))
        / bounds[name].distance
        for name in tested
    }
    return sorted(tested, key=lambda name: beyond[name], reverse=True)


def limit_values(values: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Return values within the limits of a drawn reference; one that is no number is missing."""
    known = np.where(np.isfinite(values), values, np.nan)
    return np.clip(known, *find_limits(drawn[np.isfinite(drawn)]))


def _make_frame(columns: dict[str, np.ndarray]) -> pd.DataFrame:
    rows = max(len(values) for values in columns.values())
    return pd.DataFrame(
        {name: pd.Series(values).reindex(range(rows)) for name, values in columns.items()}
    )


def read_values(snapshot: "Snapshot") -> dict[str, float]:
    """Return the result of each column's test by name; one that came to no number is left out."""
    tested = {
        metric["config"]["column"]: float(metric["value"])
        for metric in snapshot.dict()["metrics"]
        if metric["config"]["type"].endswith(":ValueDrift")
    }
    return {name: value for name, value in tested.items() if np.isfinite(value)}


def describe_column(
    name: str,
    reference: DriftReference,
    current: np.ndarray,
    value: float | None,
    bounds: Bounds,
) -> ColumnDrift:
    """Return what was found of a column; `value` is its distance, None where it was not tested."""
    summary = reference.score if name == SCORE else reference.columns[name]
    missing = float(np.isnan(current).mean()) if len(current) else 1.0
    change = abs(missing - summary.missing)
    return ColumnDrift(
        column=name,
        modality=reference.modalities.get(name, name if name == SCORE else ALL),
        importance=reference.importance.get(name, 0.0),
        method=None if value is None else METHOD,
        threshold=None if value is None else bounds.distance,
        value=value,
        values_drifted=value is not None and value >= bounds.distance,
        missing_reference=summary.missing,
        missing_current=missing,
        missing_threshold=bounds.missing,
        missing_drifted=len(current) >= MIN_KNOWN and change >= bounds.missing,
        infinite=int(np.isinf(current).sum()),
    )
