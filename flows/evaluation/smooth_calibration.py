"""Calibration as a smooth curve with its interval: observed outcomes along the prediction.

A logistic regression of the outcome on splines of the predicted log-odds (Austin & Steyerberg
2014, doi 10.1002/sim.5941). ICI and E90 are the mean and the 90th percentile of the distance
between curve and prediction (Austin & Steyerberg 2019, doi 10.1002/sim.8281).
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import SplineTransformer

from flows.datasets.rows import Labels, Probabilities
from flows.models.stacking import to_log_odds

KNOT_RANKS = (0.05, 0.35, 0.65, 0.95)
GRID = 41
#: Predictions that the curve is drawn between: beyond them there are too few rows.
GRID_RANKS = (0.01, 0.99)
CURVE_ROUNDS = 100


def fit_curve(labels: Labels, probabilities: Probabilities) -> Pipeline:
    """Fit the observed rate along the predicted log-odds; both outcomes must occur."""
    log_odds = to_log_odds(probabilities)[:, None]
    knots = np.unique(np.quantile(log_odds, KNOT_RANKS))
    # With hardly any spread there is nothing to bend.
    degree = 3 if len(knots) == len(KNOT_RANKS) else 1
    ends = knots if len(knots) > 1 else np.array([log_odds.min() - 1, log_odds.max() + 1])
    splines = SplineTransformer(
        degree=degree, knots=ends[:, None], extrapolation="linear", include_bias=False
    )
    return make_pipeline(splines, LogisticRegression(C=1e4, solver="newton-cholesky")).fit(
        log_odds, labels
    )


def read_curve(curve: Pipeline, probabilities: Probabilities) -> Probabilities:
    return np.asarray(curve.predict_proba(to_log_odds(probabilities)[:, None])[:, 1])


def draw_smooth_curve(
    labels: Labels, probabilities: Probabilities, rounds: list[NDArray[np.int64]]
) -> pl.DataFrame:
    """Return (predicted, observed, low, high) along the predictions, 95 % by individual."""
    first, last = np.quantile(probabilities, GRID_RANKS)
    grid = np.linspace(float(first), float(last), GRID)
    drawn = [
        read_curve(fit_curve(labels[rows], probabilities[rows]), grid)
        for rows in rounds[:CURVE_ROUNDS]
        if 0 < labels[rows].sum() < len(rows)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    observed = read_curve(fit_curve(labels, probabilities), grid)
    return pl.DataFrame({"predicted": grid, "observed": observed, "low": low, "high": high})


def measure_distance(labels: Labels, probabilities: Probabilities) -> dict[str, float]:
    """Return `calibration_ici` and `calibration_e90`, the distances of curve and prediction."""
    distance = np.abs(read_curve(fit_curve(labels, probabilities), probabilities) - probabilities)
    return {
        "calibration_ici": float(distance.mean()),
        "calibration_e90": float(np.quantile(distance, 0.9)),
    }
