"""The conformal interval of a release, measured on individuals its members have not seen.

Normalised split conformal prediction (Vovk et al. 2005; Lei et al. 2018), by MAPIE: the
target is the observed rate of a group predicted alike, the prediction its mean probability,
the scale of an error the binomial spread at that probability. ADR 0005.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Self

import numpy as np
from mapie.conformity_scores import ResidualNormalisedScore
from mapie.regression import SplitConformalRegressor
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, RegressorMixin

from flows.datasets.rows import Labels, Probabilities
from mlruns_config.interval import (
    ConformalInterval,
    list_missing_choices,
    measure_spread,
    name_missing,
)

COVERAGE = 0.9
#: The interval is about a group of this many individuals predicted alike: the outcome of one
#: is 0 or 1, and every honest interval for it would be nearly all of [0, 1].
GROUP_SIZE = 20
#: Predicted alike: among this many neighbours in probability.
NEIGHBOURS = 200
GROUP_DRAWS = 4000
#: An interval wider than this says too little to put a person anywhere in a queue.
ABSTAIN_ABOVE = 0.35


@dataclass(frozen=True)
class GroupRates:
    """Predicted and observed rate of groups predicted alike, and the half-width they are given."""

    predicted: Probabilities
    observed: Probabilities
    half_widths: Probabilities

    def measure_coverage(self) -> float:
        """Return the share of groups whose observed rate lies within the half-width."""
        # A rate that lies on the edge must not fall out by rounding.
        inside = np.abs(self.observed - self.predicted) <= self.half_widths + 1e-9
        return float(inside.mean())


def draw_groups(probabilities: Probabilities, seed: int) -> NDArray[np.int64]:
    """Draw groups of rows with neighbouring probabilities, int [draws, GROUP_SIZE or all rows].

    Without replacement within a group: each then strays from what was predicted of it as a
    group of new individuals does. Drawn twice, a row would count its own luck twice.
    """
    rng = np.random.default_rng(seed)
    order = np.argsort(probabilities, kind="stable")
    size = min(GROUP_SIZE, len(order))
    near = min(NEIGHBOURS, len(order))
    centres = rng.integers(0, len(order), GROUP_DRAWS)
    starts = np.clip(centres - near // 2, 0, len(order) - near)
    places = np.argpartition(rng.random((GROUP_DRAWS, near)), size - 1, axis=1)[:, :size]
    drawn: NDArray[np.int64] = order[starts[:, None] + places]
    return drawn


def compare_rates(
    probabilities: Probabilities, half_widths: Probabilities, labels: Labels, seed: int
) -> GroupRates:
    """Draw groups of the rows and put what was predicted of them beside what happened."""
    drawn = draw_groups(probabilities, seed)
    return GroupRates(
        predicted=probabilities[drawn].mean(axis=1),
        observed=labels[drawn].mean(axis=1),
        half_widths=half_widths[drawn].mean(axis=1),
    )


def measure_interval(
    by_missing: Mapping[tuple[str, ...], Probabilities], labels: Labels, seed: int
) -> ConformalInterval:
    """Return the interval whose scales hold COVERAGE of the groups drawn of these rows.

    `by_missing` has the calibrated probabilities of the same rows for every set of data types
    taken away. A scale is never below that of a smaller set.
    """
    scales: dict[str, float] = {}
    for missing in list_missing_choices():
        fewer = combinations(missing, len(missing) - 1) if missing else ()
        found = conform_scale(by_missing[missing], labels, seed)
        scales[name_missing(missing)] = max([found, *(scales[name_missing(one)] for one in fewer)])
    return ConformalInterval(
        coverage=COVERAGE, group_size=GROUP_SIZE, scales=scales, abstain_above=ABSTAIN_ABOVE
    )


def conform_scale(probabilities: Probabilities, labels: Labels, seed: int) -> float:
    """Return the conformal quantile of |observed - predicted| / spread over drawn groups."""
    drawn = draw_groups(probabilities, seed)
    predicted, observed = probabilities[drawn].mean(axis=1), labels[drawn].mean(axis=1)
    regressor = SplitConformalRegressor(
        _AsPredicted(),
        confidence_level=COVERAGE,
        conformity_score=ResidualNormalisedScore(_BinomialSpread(), prefit=True),
        prefit=True,
    )
    regressor.conformalize(predicted[:, None], observed)
    middle = 0.5
    _, bounds = regressor.predict_interval(np.array([[middle]]))
    return float(bounds[0, 1, 0] - middle) / measure_spread(middle, GROUP_SIZE)


class _Given(RegressorMixin, BaseEstimator):
    """A regressor that has nothing to learn: MAPIE asks for estimators."""

    n_features_in_ = 1

    def fit(self, _inputs: Any, _targets: Any) -> Self:
        return self


class _AsPredicted(_Given):
    """The rate of a group is predicted to be its mean probability."""

    def predict(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        return inputs[:, 0]


class _BinomialSpread(_Given):
    """How far a rate strays at a probability, by chance alone."""

    def predict(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        return measure_spread(inputs[:, 0], GROUP_SIZE)
