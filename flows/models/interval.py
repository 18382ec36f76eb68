"""The interval about one person: from refits on resampled people to what a release holds.

The refits' own spread is corrected on people they were not fitted on, as conformalised quantile
regression corrects its quantiles (Romano et al. 2019). What has to be held is the estimate of a
release learnt from other people: the members are fitted on two halves of the people, whose
difference, divided by the square root of two, is how far such a release strays. ADR 0065.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from flows.datasets.rows import ModelRows, Probabilities
from flows.models.data_types import find_patterns
from flows.models.member import FitMember, FittingData
from flows.models.out_of_fold import Predictors
from flows.models.refits import REFITS, Refits
from flows.models.stacking import to_log_odds
from mlruns_config.manifest import Head
from mlruns_config.uncertainty import RefitInterval
from serving.scoring.estimate import calibrate, stack_log_odds, to_probability
from serving.scoring.uncertainty import Bounds, find_bounds

COVERAGE = 0.9
#: Of the sorted refits: one in twenty lies beyond each end.
LOW_RANK, HIGH_RANK = REFITS // 20, REFITS - 1 - REFITS // 20
#: A quarter of the refits above it: so many must queue a person whom the estimate does not.
QUEUE_RANK = REFITS - 1 - REFITS // 4
WIDTH_QUANTILES = 21


@dataclass(frozen=True)
class Halves:
    """The weighed members, fitted on two halves of the people: as two releases would differ."""

    first: Predictors
    second: Predictors

    def measure_straying(self, head: Head, rows: ModelRows) -> Probabilities:
        """Return, in log-odds, how far a release learnt from other people strays on each row.

        Float64 [rows].
        """
        first, second = (
            to_log_odds(predict_head(half, head, rows)) for half in (self.first, self.second)
        )
        return np.asarray((first - second) / np.sqrt(2))


def fit_halves(
    families: Mapping[str, FitMember],
    names: Mapping[str, str],
    data: FittingData,
    people: pl.Series,
) -> Halves:
    """Fit the named families on each half of the people; `names` are those of their members."""
    _, person = np.unique(people.to_numpy().astype(np.str_), return_inverse=True)
    in_first = np.random.default_rng(data.seed).random(int(person.max()) + 1)[person] < 0.5
    first, second = (
        {names[family]: fit(data.select(half)) for family, fit in families.items()}
        for half in (in_first, ~in_first)
    )
    return Halves(first, second)


def predict_head(members: Predictors, head: Head, rows: ModelRows) -> Probabilities:
    """Return the calibrated probability of each row by its missing pattern. Float64 [rows]."""
    names = list(head.stacker.coefficients) or list(members)[:1]
    predictions = {name: members[name].predict(rows) for name in names}
    stacked = to_probability(stack_log_odds(head.stacker, predictions) + np.zeros(len(rows)))
    patterns, calibrated = find_patterns(rows), np.empty(len(rows))
    for pattern in np.unique(patterns):
        chosen = patterns == pattern
        calibrated[chosen] = calibrate(head.find_calibration(str(pattern)), stacked[chosen])
    return calibrated


def bound_rows(
    members: Predictors,
    refits: Mapping[str, Refits],
    head: Head,
    rows: ModelRows,
) -> Bounds:
    """Return the bounds of each row, as serving finds them for one person."""
    interval = head.uncertainty
    assert interval is not None
    names = list(head.stacker.coefficients)
    predictions = {name: members[name].predict(rows) for name in names}
    again = {name: refits[name].predict_log_odds(rows) for name in names if name in refits}
    ours = predict_head(members, head, rows)
    bounds = Bounds(*(np.empty(len(rows)) for _ in range(4)))
    patterns = find_patterns(rows)
    for pattern in np.unique(patterns):
        chosen = patterns == pattern
        part = find_bounds(
            head,
            interval,
            ours[chosen],
            {name: values[chosen] for name, values in predictions.items()},
            {name: values[chosen] for name, values in again.items()},
            str(pattern),
        )
        for name in ("low", "high", "contested", "width"):
            getattr(bounds, name)[chosen] = getattr(part, name)
    return bounds


def make_interval(margin: float, widths: Probabilities | None = None) -> RefitInterval:
    """Return an interval with this margin; `widths` are those of the people learnt from."""
    spread = np.linspace(0, 1, WIDTH_QUANTILES)
    quantiles = np.zeros(2) if widths is None else np.quantile(widths, spread)
    return RefitInterval(
        coverage=COVERAGE,
        refits=REFITS,
        low_rank=LOW_RANK,
        high_rank=HIGH_RANK,
        queue_rank=QUEUE_RANK,
        margin=margin,
        widths=np.maximum.accumulate(np.maximum(quantiles, 0)).tolist(),
    )


def measure_margin(ours: Probabilities, bounds: Bounds, straying: Probabilities) -> float:
    """Return by how much the refits' ends must be moved so that COVERAGE of the rows are held."""
    other = to_log_odds(ours) + straying
    beyond = np.maximum(to_log_odds(bounds.low) - other, other - to_log_odds(bounds.high))
    return float(np.quantile(beyond, COVERAGE))


def measure_coverage(ours: Probabilities, bounds: Bounds, straying: Probabilities) -> float:
    """Return the share of rows whose interval holds what a release of other people says."""
    other = to_probability(to_log_odds(ours) + straying)
    return float(((other >= bounds.low) & (other <= bounds.high)).mean())
