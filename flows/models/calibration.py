"""The map from stacked to calibrated probability, and the choice of its kind.

Fitted on predictions about individuals their members have not seen. Platt's map (Platt 1999)
bends nothing, the beta map (Kull et al. 2017) bends the ends apart, the centred isotonic map
(Oron & Flournoy 2017) bends anywhere. ADR 0012 says how one is chosen.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupKFold

from feature_repo.outcomes import HORIZON_DAYS
from flows.datasets.rows import Labels, Probabilities, number_individuals
from flows.models.out_of_fold import FOLDS
from flows.models.stacking import to_log_odds
from mlruns_config.heads import Calibration
from serving.scoring.estimate import PROBABILITY_MARGIN

#: Shares of the months before which a kind learns and from which on it is asked.
CHAINED_FROM = (1 / 2, 2 / 3, 5 / 6)

#: Lowest and highest value of a slope; None: any.
Bound = tuple[float | None, float | None]
Fold = tuple[NDArray[np.int64], NDArray[np.int64]]


class TooFewOutcomesError(ValueError):
    """The calibration rows cannot be divided so that every part has both outcomes."""


def choose_calibration(
    stacked: Probabilities, labels: Labels, individuals: pl.Series, index_dates: pl.Series
) -> Calibration:
    """Return the kind of map with the lowest log loss on later months of other individuals.

    Fitted on every row given. Raises TooFewOutcomesError when a part would have to be learnt from
    one outcome alone. Probabilities are float64 [rows], labels bool [rows].
    """
    folds = divide_rows(labels, individuals, index_dates)
    losses = dict.fromkeys(MAPS, 0.0)
    for learnt, asked in folds:
        for kind, fit in MAPS.items():
            mapped = fit(stacked[learnt], labels[learnt]).apply(stacked[asked])
            clipped = np.clip(mapped, PROBABILITY_MARGIN, 1 - PROBABILITY_MARGIN)
            losses[kind] += float(log_loss(labels[asked], clipped, normalize=False, labels=[0, 1]))
    return MAPS[min(losses, key=lambda kind: losses[kind])](stacked, labels)


def divide_rows(labels: Labels, individuals: pl.Series, index_dates: pl.Series) -> list[Fold]:
    """Return pairs of rows to learn from and rows of other individuals to be asked about.

    The asked ones come after the learnt ones' outcomes were known, as in use; where there are too
    few months for that, from any month. Raises TooFewOutcomesError where a part would lack one of
    the outcomes. Rows are int64 positions.
    """
    people = number_individuals(individuals)
    if individuals.n_unique() >= FOLDS:
        by_person = list(GroupKFold(FOLDS).split(labels, groups=people))
        for folds in (list(chain_months(by_person, index_dates)), by_person):
            if all(0 < labels[learnt].sum() < len(learnt) for learnt, _ in folds):
                return folds
    raise TooFewOutcomesError(
        f"{len(labels)} rows of {individuals.n_unique()} individuals, {labels.sum()} with the "
        "outcome, are too few to calibrate a release on"
    )


def chain_months(folds: list[Fold], index_dates: pl.Series) -> Iterator[Fold]:
    """Yield folds whose learnt rows had their outcome before the first of the asked rows."""
    days = index_dates.cast(pl.Date).cast(pl.Int32).to_numpy()
    edges = np.quantile(days, [*CHAINED_FROM, 1.0])
    for begin, end in pairwise(edges):
        early = days < begin - HORIZON_DAYS
        late = (days >= begin) & ((days < end) | (end == edges[-1]))
        for learnt, asked in folds:
            if late[asked].any():
                yield learnt[early[learnt]], asked[late[asked]]


def fit_platt(stacked: Probabilities, labels: Labels) -> Calibration:
    """Fit log-odds' = a + b * log-odds, b not below zero, written as knots. Source: Platt 1999.

    Where nothing ranks people, folds of fewer outcomes have the higher estimates: an unbounded b
    would be below zero, and no rising map follows it. At zero the map is the overall rate.
    """
    inputs = _spread_knots()
    outputs = _fit_log_odds(to_log_odds(stacked)[:, None], labels, to_log_odds(inputs)[:, None])
    return _close_ends("platt", inputs, outputs)


def fit_beta(stacked: Probabilities, labels: Labels) -> Calibration:
    """Fit log-odds' = a * ln p - b * ln(1 - p) + c, neither a nor b below zero, as knots."""
    inputs = _spread_knots()
    outputs = _fit_log_odds(_take_logarithms(stacked), labels, _take_logarithms(inputs))
    return _close_ends("beta", inputs, outputs)


def _fit_log_odds(
    columns: NDArray[np.float64], labels: Labels, asked: NDArray[np.float64]
) -> Probabilities:
    """Fit log-odds linear in `columns` by likelihood, no slope below zero; apply it to `asked`.

    Columns are float64 [rows, terms], `asked` [knots, terms], the answer [knots].
    """
    # Centred, so that the search does not stall where the rows have nearly one value.
    centre = columns.mean(axis=0)
    fitted = maximise_likelihood(columns - centre, labels, [(0, None)] * columns.shape[1])
    return np.asarray(expit(fitted[0] + (asked - centre) @ fitted[1:]))


def maximise_likelihood(
    columns: NDArray[np.float64], labels: Labels, slopes: Sequence[Bound]
) -> NDArray[np.float64]:
    """Return intercept and slopes of a logistic of `columns`, each slope within its bound.

    Columns are float64 [rows, terms], labels bool [rows], the answer float64 [1 + terms].
    """

    def loss(parameters: NDArray[np.float64]) -> float:
        log_odds = parameters[0] + columns @ parameters[1:]
        return float(np.logaddexp(0, np.where(labels, -log_odds, log_odds)).mean())

    start, bounds = [0.0, *[1.0] * len(slopes)], [(None, None), *slopes]
    return np.asarray(minimize(loss, start, bounds=bounds, method="L-BFGS-B").x)


def _take_logarithms(probabilities: Probabilities) -> NDArray[np.float64]:
    inside = np.clip(probabilities, PROBABILITY_MARGIN, 1 - PROBABILITY_MARGIN)
    return np.column_stack([np.log(inside), -np.log1p(-inside)])


def fit_isotonic(stacked: Probabilities, labels: Labels) -> Calibration:
    """Fit rates that never fall, each put at the centre of its rows, lines between them.

    Every rate counts one more row of the overall rate: none becomes 0 or 1 by its few rows. Source:
    Zadrozny and Elkan 2002.
    """
    # Between two inputs that differ in the last bit, scikit-learn interpolates to NaN.
    stacked = stacked.round(12)
    fitted = IsotonicRegression().fit(stacked, labels.astype(float)).predict(stacked)
    levels, level, sizes = np.unique(fitted, return_inverse=True, return_counts=True)
    centres = np.bincount(level, stacked) / sizes
    rates = (levels * sizes + labels.mean()) / (sizes + 1)
    return _close_ends("isotonic", centres, rates)


def _spread_knots() -> Probabilities:
    return np.asarray(expit(np.linspace(logit(0.001), logit(0.999), 101)))


def _close_ends(kind: str, inputs: Probabilities, outputs: Probabilities) -> Calibration:
    monotone = np.maximum.accumulate(outputs)
    knots = [float(monotone[0]), *monotone.tolist(), float(monotone[-1])]
    return Calibration.model_validate(
        {"kind": kind, "inputs": [0.0, *inputs.tolist(), 1.0], "outputs": knots}
    )


#: The simplest first: it is taken where two do equally well.
MAPS = {"platt": fit_platt, "beta": fit_beta, "isotonic": fit_isotonic}
