"""What counts as drift: tests by Evidently, column by column, and one number of them all.

A column has drifted when its known values are distributed otherwise than in training, or when
it is missing otherwise. The drift score is the share of drifted columns, each weighed by its
importance to the release. ADR 0017.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from monitoring.drift_reference import SCORE, ColumnSummary, DriftReference, draw

if TYPE_CHECKING:
    from evidently.core.report import Snapshot

#: Rows of either side that are tested; distances no longer change with more, the time does.
SAMPLE_ROWS = 5_000
#: Fewer known values of a column say nothing about how they are distributed.
MIN_KNOWN = 100
#: From here on a p-value detects irrelevant differences; distances are used instead.
LARGE_SAMPLE = 1_000
#: A share of missing values has drifted by at least this, and beyond chance.
MISSING_CHANGE = 0.1
MISSING_Z = 2.58


@dataclass(frozen=True)
class DriftTest:
    """How a column is tested: drifted above `threshold`, of a p-value below it."""

    method: str
    threshold: float

    def finds_drift(self, value: float) -> bool:
        return value < self.threshold if self.method == "ks" else value >= self.threshold


@dataclass(frozen=True)
class ColumnDrift:
    """One column: its test (None where too little is known) and its missing values."""

    column: str
    importance: float
    method: str | None
    threshold: float | None
    value: float | None
    values_drifted: bool
    missing_reference: float
    missing_current: float
    missing_drifted: bool
    #: Values that are not numbers: a fault of their source.
    infinite: int

    @property
    def drifted(self) -> bool:
        return self.values_drifted or self.missing_drifted or self.infinite > 0


@dataclass(frozen=True)
class DriftResult:
    """Drift of features and score, most important column first."""

    columns: list[ColumnDrift]
    score: ColumnDrift | None
    rows_current: int
    snapshot: "Snapshot | None"

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
    reference: DriftReference, features: pd.DataFrame, scores: pd.Series
) -> DriftResult:
    """Compare what was screened with a release's training data.

    `features` has a column per feature (one that is absent counts as missing everywhere),
    `scores` the release's probabilities; either may be of fewer rows, or of none.
    """
    sampled = features.head(SAMPLE_ROWS)
    current = {name: _take(sampled, name) for name in reference.columns}
    current[SCORE] = scores.head(SAMPLE_ROWS).to_numpy(np.float64)
    summaries = reference.columns | {SCORE: reference.score}
    tests = {
        name: test
        for name, values in current.items()
        if (test := choose_test(summaries[name], values)) is not None
    }
    snapshot = run_report(summaries, current, tests) if tests else None
    drift_values = read_values(snapshot) if snapshot else {}
    columns = {
        name: describe_column(
            name, summaries[name], values, tests.get(name), drift_values.get(name), reference
        )
        for name, values in current.items()
    }
    score = columns.pop(SCORE)
    ordered = sorted(columns.values(), key=lambda column: column.importance, reverse=True)
    return DriftResult(ordered, score if score.method else None, len(sampled), snapshot)


def _take(features: pd.DataFrame, name: str) -> np.ndarray:
    if name not in features:
        return np.full(len(features), np.nan)
    return features[name].to_numpy(np.float64)


def choose_test(summary: ColumnSummary, current: np.ndarray) -> DriftTest | None:
    """Return how a column is tested, by its type and size; None where it cannot be.

    Evidently stops at a column without a value, or with an infinite one: neither reaches it.
    """
    known_rows = int(np.isfinite(current).sum())
    if not summary.is_known or known_rows < MIN_KNOWN:
        return None
    if summary.is_discrete:
        # Of few rows the distance is above 0.1 by chance alone.
        return DriftTest("jensenshannon", 0.1 if known_rows >= LARGE_SAMPLE else 0.2)
    return DriftTest("wasserstein", 0.1) if known_rows >= LARGE_SAMPLE else DriftTest("ks", 0.01)


def run_report(
    summaries: dict[str, ColumnSummary],
    current: dict[str, np.ndarray],
    tests: dict[str, DriftTest],
) -> "Snapshot":
    """Run Evidently over the columns that can be tested."""
    # Imported late: Evidently takes seconds to import, and the tests of definitions need none.
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    discrete = [name for name in tests if summaries[name].is_discrete]
    definition = DataDefinition(
        numerical_columns=[name for name in tests if name not in discrete],
        categorical_columns=discrete,
    )
    sides = (
        {name: current[name] for name in tests},
        {name: draw(summaries[name], SAMPLE_ROWS) for name in tests},
    )
    now, then = (
        Dataset.from_pandas(_make_frame(side, discrete), data_definition=definition)
        for side in sides
    )
    preset = DataDriftPreset(
        columns=list(tests),
        per_column_method={name: test.method for name, test in tests.items()},
        per_column_threshold={name: test.threshold for name, test in tests.items()},
    )
    return Report([preset]).run(now, then)


def _make_frame(columns: dict[str, np.ndarray], discrete: list[str]) -> pd.DataFrame:
    rows = max(len(values) for values in columns.values())
    made = {}
    for name, values in columns.items():
        finite = pd.Series(np.where(np.isfinite(values), values, np.nan)).reindex(range(rows))
        made[name] = finite.map("{:g}".format, na_action="ignore") if name in discrete else finite
    return pd.DataFrame(made)


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
    summary: ColumnSummary,
    current: np.ndarray,
    test: DriftTest | None,
    value: float | None,
    reference: DriftReference,
) -> ColumnDrift:
    missing = float(np.isnan(current).mean()) if len(current) else 1.0
    return ColumnDrift(
        column=name,
        importance=reference.importance.get(name, 0.0),
        method=test.method if test else None,
        threshold=test.threshold if test else None,
        value=value,
        values_drifted=test is not None and value is not None and test.finds_drift(value),
        missing_reference=summary.missing,
        missing_current=missing,
        missing_drifted=_has_missing_drifted(summary.missing, missing, len(current)),
        infinite=int(np.isinf(current).sum()),
    )


def _has_missing_drifted(reference: float, current: float, rows: int) -> bool:
    if rows < MIN_KNOWN:
        return False
    spread = np.sqrt(max(reference * (1 - reference), 1 / rows) / rows)
    change = abs(current - reference)
    return bool(change >= MISSING_CHANGE and change / spread >= MISSING_Z)
