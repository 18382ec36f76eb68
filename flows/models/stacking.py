"""From member probabilities to a release: weights and score map.

Members are weighed by their out-of-fold predictions, grouped by individual (Wolpert 1992).
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

from flows.datasets.rows import Labels, Probabilities
from mlruns_config.heads import ScoreMap, Stacker
from serving.scoring.estimate import PROBABILITY_MARGIN

#: A pull to equal weights where the members cannot be told apart.
STACKER_RIDGE = 1e-3
#: A weight below this is noise: the member is left out.
MIN_WEIGHT = 0.02

#: Score edge -> share of screenings at or above it, and what it was chosen for.
OPERATING_POINTS = {
    25: (0.40, "40 % of screenings score higher: what a service can look at within weeks"),
    50: (0.15, "15 % of screenings score higher: what a service can look at within days"),
    75: (0.05, "5 % of screenings score higher: what a service can look at today"),
}


def fit_stacker(predictions: Mapping[str, Probabilities], labels: Labels) -> Stacker:
    """Weigh the members by logistic regression on log-odds, no weight below zero.

    Every member's probabilities are float64 [rows], labels bool [rows], in the same order.
    """
    names = list(predictions)
    columns = np.column_stack([to_log_odds(predictions[name]) for name in names])

    def loss(parameters: NDArray[np.float64]) -> float:
        log_odds = parameters[0] + columns @ parameters[1:]
        signed = np.where(labels, -log_odds, log_odds)
        return float(np.logaddexp(0, signed).mean() + STACKER_RIDGE * (parameters[1:] ** 2).sum())

    start = np.concatenate([[0.0], np.full(len(names), 1 / len(names))])
    bounds = [(None, None), *[(0, None)] * len(names)]
    fitted = minimize(loss, start, bounds=bounds, method="L-BFGS-B").x
    kept = {n: float(w) for n, w in zip(names, fitted[1:], strict=True) if w >= MIN_WEIGHT}
    return Stacker(intercept=float(fitted[0]), coefficients=kept)


def to_log_odds(probabilities: Probabilities) -> Probabilities:
    margin = PROBABILITY_MARGIN
    return np.asarray(logit(np.clip(probabilities, margin, 1 - margin)))


def stack(stacker: Stacker, predictions: Mapping[str, Probabilities]) -> Probabilities:
    """Return the stacked, not yet calibrated probability of each row. Float64 [rows]."""
    # Of any member, weighed or not: where none is, every row still gets a probability.
    rows = len(next(iter(predictions.values()), ()))
    log_odds = np.full(rows, stacker.intercept)
    for name, weight in stacker.coefficients.items():
        log_odds += weight * to_log_odds(predictions[name])
    return np.asarray(expit(log_odds))


def make_score_map(probabilities: Probabilities) -> ScoreMap:
    """Put the score's edges where the named shares of calibration rows lie above."""
    edges = [float(np.quantile(probabilities, 1 - share)) for share, _ in OPERATING_POINTS.values()]
    return ScoreMap(
        probabilities=_spread([0.0, *edges, 1.0]),
        scores=[0.0, *map(float, OPERATING_POINTS), 100.0],
        operating_points={str(edge): words for edge, (_, words) in OPERATING_POINTS.items()},
    )


def _spread(edges: list[float]) -> list[float]:
    """Keep edges strictly increasing where an isotonic map has made some equal."""
    step = 1e-4
    inner = [max(edge, step * (n + 1)) for n, edge in enumerate(edges[1:-1])]
    for n in range(1, len(inner)):
        inner[n] = max(inner[n], inner[n - 1] + step)
    return [0.0, *(min(edge, 1 - step * (len(inner) - n)) for n, edge in enumerate(inner)), 1.0]
