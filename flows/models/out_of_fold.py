"""A member fitted to all rows and once per fold: each row has an estimate that never saw it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from flows.datasets.rows import ModelRows, Probabilities, number_individuals
from flows.models.member import FitMember, FittedMember, FittingData
from flows.models.side_by_side import FitEach, fit_in_threads

FOLDS = 4


class Predictor(Protocol):
    """Anything that gives each row a probability."""

    def predict(self, rows: ModelRows) -> Probabilities:
        """Return the probability of the outcome for each row."""


Predictors = Mapping[str, Predictor]


@dataclass(frozen=True)
class CrossFitted:
    """A member fitted to all rows, and one for each fold; `asked` are the rows it did not see."""

    member: FittedMember
    folds: list[tuple[NDArray[np.int64], Predictor]]

    def predict(self, rows: ModelRows) -> Probabilities:
        """Return the out-of-fold estimate of each fitting row, in their order."""
        predicted = np.full(len(rows), np.nan)
        for asked, member in self.folds:
            predicted[asked] = member.predict(rows.select(asked))
        return predicted


def cross_fit(
    data: FittingData, individuals: pl.Series, fit: FitMember, fit_each: FitEach = fit_in_threads
) -> CrossFitted:
    """Fit a member to all rows, and FOLDS times without the individuals of one fold.

    `fit_each` is how its family is fitted to several parts. The member is exported with them.
    """
    folds = GroupKFold(FOLDS, shuffle=True, random_state=data.seed)
    learnt, asked = zip(
        *folds.split(data.labels, groups=number_individuals(individuals)), strict=True
    )
    # The largest part first, so that the last ones end together.
    member, *others = fit_each(fit, data, [np.arange(len(data.rows)), *learnt], 1)
    return CrossFitted(member, list(zip(asked, others, strict=True)))
