"""A member fitted once per fold, so that each fitting row has an estimate that never saw it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from flows.datasets.rows import ModelRows, Probabilities
from flows.models.member import FitMember, FittingData, fit_each

FOLDS = 4


class Predictor(Protocol):
    """Anything that gives each row a probability."""

    def predict(self, rows: ModelRows) -> Probabilities:
        """Return the probability of the outcome for each row."""


Predictors = Mapping[str, Predictor]


@dataclass(frozen=True)
class CrossFitted:
    """One fitted member for each fold; `asked` are the rows of the fold it did not see."""

    folds: list[tuple[NDArray[np.int64], Predictor]]

    def predict(self, rows: ModelRows) -> Probabilities:
        """Return the out-of-fold estimate of each fitting row, in their order."""
        predicted = np.full(len(rows), np.nan)
        for asked, member in self.folds:
            predicted[asked] = member.predict(rows.select(asked))
        return predicted


def cross_fit(
    data: FittingData, individuals: pl.Series, fit: FitMember, at_once: int = 1
) -> CrossFitted:
    """Fit a member FOLDS times, each time without the individuals of one fold.

    `at_once` is that of `fit_each`.
    """
    folds = GroupKFold(FOLDS, shuffle=True, random_state=data.seed)
    learnt, asked = zip(*folds.split(data.labels, groups=individuals.to_numpy()), strict=True)
    return CrossFitted(list(zip(asked, fit_each(fit, data, learnt, at_once), strict=True)))
