"""Logistic regression with splines: the baseline every other member must beat.

Missing values are filled with the median and flagged, columns standardised, coefficients shrunk
(ridge). Symptom scores bend: each is a sum of ramps between its severity cut-offs (linear
splines, Harrell 2015), because a straight line from 0 to 27 points fits neither end; days since
care bend too. None of MONOTONE_COLUMNS has a coefficient or a ramp below zero. All of it folds
into one closed form (`folded_regression.py`), which is what is exported.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from feature_repo.instruments import GAD7, PHQ9
from flows.datasets.rows import Labels
from flows.models.data_types import add_blanked_copies, keep_features
from flows.models.folded_regression import (
    FoldedRegression,
    Numbers,
    Ramp,
    RefittedRegression,
    climb,
)
from flows.models.member import FittingData
from flows.models.missing import find_medians
from flows.models.monotone import MONOTONE_COLUMNS
from flows.models.refits import Counts
from flows.models.ridge import fit_ridge
from flows.models.side_by_side import open_pool

#: A refit only has to be right within its own chance.
REFIT_TOLERANCE = 1e-6

#: Knots of days since care: beyond a year, as outside of any knots, the line stays level. The
#: first rows of a cohort have no long gaps, and a straight line through them has no end.
DAYS_SINCE = (0, 30, 90, 180, 365)
#: Knots of the columns that bend: the severity cut-offs, from the lowest total to the highest.
KNOTS: dict[str, tuple[float, ...]] = {
    "phq9_total": (0, 5, 10, 15, 20, PHQ9.max_total),
    "phq9_mean_365": (0, 5, 10, 15, 20, PHQ9.max_total),
    "phq9_change": (-10, -5, 0, 5, 10),
    "gad7_total": (0, 5, 10, 15, GAD7.max_total),
    "days_since_psychiatric": DAYS_SINCE,
    "days_since_acute_psychiatric": DAYS_SINCE,
}

#: A column that varies less, in its own unit, does not vary.
SMALLEST_SCALE = 1e-6
#: Column, low and high of a ramp.
Piece = tuple[int, float, float]


def list_pieces(names: tuple[str, ...]) -> list[Piece]:
    """Return (column, low, high) of every ramp."""
    return [
        (names.index(name), low, high)
        for name, knots in KNOTS.items()
        if name in names
        for low, high in pairwise(knots)
    ]


@dataclass(frozen=True)
class Design:
    """What the ridge regression is fitted on: straight columns, flags of the missing, ramps.

    `place` and `share` say of each of them which fitted column has its coefficient.
    """

    columns: Numbers
    labels: Labels
    rising: NDArray[np.bool_]
    pieces: list[Piece]
    place: NDArray[np.int64]
    share: Numbers
    fill: Numbers
    mean: Numbers
    scale: Numbers
    centres: Numbers

    def fold(self, weights: Numbers, intercept: float) -> FoldedRegression:
        """Return the closed form of the coefficients of the fitted columns."""
        width = len(self.fill)
        weights = np.where(self.place >= 0, weights[self.place] * self.share, 0.0)
        bent = zip(self.pieces, self.centres, weights[2 * width :], strict=True)
        return FoldedRegression(
            fill=self.fill.tolist(),
            mean=self.mean.tolist(),
            scale=self.scale.tolist(),
            coefficients=weights[:width].tolist(),
            missing_coefficients=weights[width : 2 * width].tolist(),
            intercept=intercept,
            ramps=[
                Ramp(column, low, high, float(centre), float(weight))
                for (column, low, high), centre, weight in bent
            ],
        )

    def unfold(self, member: FoldedRegression) -> Numbers:
        """Return the coefficients of the fitted columns that give a closed form, and intercept."""
        ramps = [ramp.coefficient for ramp in member.ramps]
        given = np.array([*member.coefficients, *member.missing_coefficients, *ramps])
        fitted = np.zeros(self.columns.shape[1] + 1)
        used = self.place >= 0
        fitted[self.place[used]] = given[used] / self.share[used]
        fitted[-1] = member.intercept
        return fitted


def design(data: FittingData) -> Design:
    """Return the columns of the rows and of copies of them that lack whole parts."""
    data = add_blanked_copies(keep_features(data))
    missing = np.isnan(data.rows.features)
    fill = find_medians(data.rows.features)
    filled = np.where(missing, fill, data.rows.features)
    mean, scale = filled.mean(axis=0), filled.std(axis=0)
    scale[scale < SMALLEST_SCALE] = 1.0
    pieces = list_pieces(data.names)
    ramps = [climb(filled[:, column], low, high) for column, low, high in pieces]
    centres = np.array([ramp.mean() for ramp in ramps])
    straight = filled  # in place: of many rows a copy less
    straight -= mean
    straight /= scale
    straight[:, [column for column, _, _ in pieces]] = 0.0
    place, share = merge_columns(straight, missing, len(pieces))
    given = [
        *straight.T,
        *missing.T,
        *(ramp - centre for ramp, centre in zip(ramps, centres, strict=True)),
    ]
    columns, rising = np.empty((len(filled), place.max() + 1)), find_rising(data, pieces)
    # One after the other: the largest array of a training is not put together of parts as large.
    for column, to, part in zip(given, place, share, strict=True):
        if to >= 0:
            columns[:, to] = column / part
    rises = np.zeros(columns.shape[1], bool)
    rises[place[place >= 0]] = rising[place >= 0]
    return Design(columns, data.labels, rises, pieces, place, share, fill, mean, scale, centres)


def merge_columns(
    straight: Numbers, missing: NDArray[np.bool_], ramps: int
) -> tuple[NDArray[np.int64], Numbers]:
    """Return for each straight column, flag and ramp its fitted column, and its share of a weight.

    A column that does not vary has none (-1): the ridge gives it no coefficient. Flags that are
    always set together share one column, as long as all of them, whose coefficient they divide:
    the minimum is the same, of half as many columns.
    """
    varies = np.asarray(np.abs(straight).max(axis=0) > SMALLEST_SCALE)
    _, first, which, sizes = np.unique(
        np.packbits(missing, axis=0),
        axis=1,
        return_index=True,
        return_inverse=True,
        return_counts=True,
    )
    differs = np.asarray(missing[:, first].any(axis=0) & ~missing[:, first].all(axis=0))
    straight_place = _number(varies, 0)
    flag_place = _number(differs, int(varies.sum()))[which]
    begin = int(varies.sum() + differs.sum())
    place = np.concatenate([straight_place, flag_place, begin + np.arange(ramps)])
    share = np.concatenate([np.ones(len(varies)), 1 / np.sqrt(sizes[which]), np.ones(ramps)])
    return place, share


def _number(chosen: NDArray[np.bool_], begin: int) -> NDArray[np.int64]:
    """Return the numbers of the chosen from `begin` on, -1 for the others."""
    return np.where(chosen, begin + np.cumsum(chosen) - 1, -1)


def fit(data: FittingData) -> FoldedRegression:
    """Fit on the features and copies of them that lack whole parts."""
    given = design(data)
    return given.fold(*fit_ridge(given.columns, given.labels, given.rising))


def refit(member: FoldedRegression, data: FittingData, counts: Counts) -> RefittedRegression:
    """Fit again for each row of `counts`, from the member's coefficients on."""
    given = design(data)
    start = given.unfold(member)

    def fit_drawn(often: Numbers) -> FoldedRegression:
        drawn = often > 0
        columns, labels = given.columns[drawn], given.labels[drawn]
        fitted = fit_ridge(columns, labels, given.rising, often[drawn], start, REFIT_TOLERANCE)
        return given.fold(*fitted)

    # Rows, then their copies. The time goes into products of matrices, so two go together.
    with open_pool() as pool:
        return RefittedRegression(list(pool.map(fit_drawn, np.hstack([counts, counts]))))


def find_rising(data: FittingData, pieces: list[Piece]) -> NDArray[np.bool_]:
    """Return which of the fitted columns may have no coefficient below zero.

    Bool [fitted columns].
    """
    names = [*data.names, *[""] * len(data.names), *(data.names[column] for column, _, _ in pieces)]
    return np.isin(names, MONOTONE_COLUMNS)
