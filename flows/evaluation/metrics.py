"""Discrimination, calibration and usefulness of predicted probabilities.

Definitions: AUROC and average precision (AUPRC), Brier score; calibration slope and
intercept by logistic recalibration (Cox 1958; Van Calster et al. 2019); ECE over ten
equally filled bins; net benefit (Vickers & Elkin 2006).
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression

from flows.datasets.rows import Individuals, Labels, Probabilities
from flows.models.stacking import to_log_odds

CALIBRATION_BINS = 10
BOOTSTRAP_ROUNDS = 300
INTERVAL_SHARE = 0.95
#: Review shares at which sensitivity and positive predictive value are reported.
TOP_SHARES = (0.01, 0.05, 0.10)

#: Threshold probabilities of a decision curve, and the name dcurves is given of the outcome.
CURVE_THRESHOLDS = [percent / 100 for percent in range(1, 61)]
OUTCOME = "outcome"

Metric = Callable[[Labels, Probabilities], float]
Interval = tuple[float, float]


class OneSidedLabelsError(ValueError):
    """The rows hold only one outcome, so discrimination is not defined."""


def compute_metrics(labels: Labels, probabilities: Probabilities) -> dict[str, float]:
    """Return every metric by name; raises OneSidedLabelsError if one outcome is absent.

    Labels are bool [rows], probabilities float64 [rows] from 0 to 1.
    """
    if labels.all() or not labels.any():
        raise OneSidedLabelsError(f"all {len(labels)} rows have the same outcome")
    slope, intercept = fit_recalibration(labels, probabilities)
    metrics = {
        "auroc": auroc(labels, probabilities),
        "auprc": auprc(labels, probabilities),
        "brier": brier(labels, probabilities),
        "ece": measure_ece(labels, probabilities),
        "calibration_slope": slope,
        "calibration_intercept": intercept,
        "prevalence": float(labels.mean()),
    }
    for share in TOP_SHARES:
        sensitivity, ppv = measure_top_share(labels, probabilities, share)
        percent = f"{share * 100:.0f}"
        metrics |= {f"sensitivity_top_{percent}": sensitivity, f"ppv_top_{percent}": ppv}
    return metrics


def fit_recalibration(labels: Labels, probabilities: Probabilities) -> tuple[float, float]:
    """Return (slope, intercept) of logit(outcome) on logit(probability); ideal is (1, 0)."""
    # A third of the default solver's time, and exact: a bootstrap fits this hundreds of times.
    model = LogisticRegression(C=1e6, solver="newton-cholesky", tol=1e-8)
    model.fit(to_log_odds(probabilities)[:, None], labels)
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def measure_ece(labels: Labels, probabilities: Probabilities) -> float:
    """Return the expected calibration error over equally filled bins.

    Labels are bool [rows], probabilities float64 [rows]; 0 to 1.
    """
    order = np.argsort(probabilities, kind="stable")
    bins = np.array_split(order, min(CALIBRATION_BINS, len(order)))
    gaps = [abs(labels[rows].mean() - probabilities[rows].mean()) * len(rows) for rows in bins]
    return float(sum(gaps) / len(labels))


def measure_top_share(
    labels: Labels, probabilities: Probabilities, share: float
) -> tuple[float, float]:
    """Return (sensitivity, positive predictive value) of reviewing the top `share` of rows."""
    count = max(1, round(share * len(labels)))
    top = np.argsort(-probabilities, kind="stable")[:count]
    return float(labels[top].sum() / labels.sum()), float(labels[top].mean())


def measure_net_benefit(labels: Labels, probabilities: Probabilities, threshold: float) -> float:
    """Return the net benefit of reviewing everyone at or above `threshold`, per individual.

    Source: Vickers and Elkin 2006, decision curve analysis. Labels are bool [rows], probabilities
    float64 [rows].
    """
    flagged = probabilities >= threshold
    true_positives = float((flagged & labels).mean())
    false_positives = float((flagged & ~labels).mean())
    return true_positives - false_positives * threshold / (1 - threshold)


def measure_decision_curve(labels: Labels, curves: Mapping[str, Probabilities]) -> pl.DataFrame:
    """Return the net benefit of each curve by threshold, with that of reviewing all and none.

    Columns model, threshold, net_benefit, true_positives, false_positives (per individual).
    """
    # Imported late: it brings a survival library along, seconds of imports.
    from dcurves import dca

    frame = pl.DataFrame({OUTCOME: labels.astype(int), **curves}).to_pandas()
    table = dca(frame, OUTCOME, list(curves), thresholds=CURVE_THRESHOLDS)
    columns = {"tp_rate": "true_positives", "fp_rate": "false_positives"}
    return pl.from_pandas(table[["model", "threshold", "net_benefit", *columns]]).rename(columns)


def draw_bootstrap_rows(
    individuals: Individuals, seed: int, rounds: int = BOOTSTRAP_ROUNDS
) -> list[NDArray[np.int64]]:
    """Draw individuals with replacement and return the rows of each round.

    `individuals` names or numbers each row's. Rows of one individual are alike: drawing rows would
    make intervals too narrow. Each round is int64 [drawn rows].
    """
    rng = np.random.default_rng(seed)
    _, person, counts = np.unique(individuals, return_inverse=True, return_counts=True)
    rows_of = np.split(np.argsort(person, kind="stable"), np.cumsum(counts)[:-1])
    return [
        np.concatenate([rows_of[drawn] for drawn in rng.integers(0, len(rows_of), len(rows_of))])
        for _ in range(rounds)
    ]


def bootstrap_interval(
    metric: Metric, labels: Labels, probabilities: Probabilities, rounds: list[NDArray[np.int64]]
) -> Interval:
    """Return the 95 % percentile interval of a metric.

    `rounds` are those of `draw_bootstrap_rows`; those with one outcome alone are left out.
    """
    return take_interval(bootstrap_metric(metric, labels, probabilities, rounds))


def bootstrap_metric(
    metric: Metric, labels: Labels, probabilities: Probabilities, rounds: list[NDArray[np.int64]]
) -> list[float]:
    """Return a metric of each round; those with one outcome alone are left out."""
    return _measure_rounds(metric, labels, probabilities, _usable(labels, rounds))


def bootstrap_difference(
    metric: Metric,
    labels: Labels,
    ours: Probabilities,
    theirs: Probabilities,
    rounds: list[NDArray[np.int64]],
) -> Interval:
    """Return the 95 % interval of metric(ours) - metric(theirs) on the same rows."""
    usable = _usable(labels, rounds)
    mine, others = (_measure_rounds(metric, labels, each, usable) for each in (ours, theirs))
    return take_interval(np.subtract(mine, others).tolist())


def _measure_rounds(
    metric: Metric, labels: Labels, probabilities: Probabilities, rounds: list[NDArray[np.int64]]
) -> list[float]:
    ranked = {auroc: auroc_by_round, auprc: auprc_by_round}
    if metric in ranked:
        return ranked[metric](labels, probabilities, rounds)
    return [metric(labels[rows], probabilities[rows]) for rows in rounds]


def _usable(labels: Labels, rounds: list[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    return [rows for rows in rounds if 0 < labels[rows].sum() < len(rows)]


def take_interval(values: list[float]) -> Interval:
    """Return the 95 % percentile interval of bootstrapped values."""
    tail = (1 - INTERVAL_SHARE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def take_compared_interval(values: list[float], compared: int) -> Interval:
    """Return the interval of one of `compared` values, which hold together at 95 % (Bonferroni).

    The tail is that of a normal distribution: so far out, a bootstrap has too few rounds.
    """
    beyond = norm.ppf(1 - (1 - INTERVAL_SHARE) / (2 * compared))
    centre, reach = float(np.mean(values)), float(beyond * np.std(values))
    return centre - reach, centre + reach


def auroc(labels: Labels, probabilities: Probabilities) -> float:
    """Return the area under the ROC curve by ranks, a tie counted as half.

    Labels are bool [rows], probabilities float64 [rows]. NaN for one outcome alone; raises
    ValueError for a probability that is NaN. Source: Hanley and McNeil 1982.
    """
    return auroc_by_round(labels, probabilities, [np.arange(len(labels))])[0]


def auroc_by_round(
    labels: Labels, probabilities: Probabilities, rounds: list[NDArray[np.int64]]
) -> list[float]:
    """Return the `auroc` of the rows of each round; raises ValueError as it does.

    The rows are ranked once: a round only counts how often each rank was drawn, a tenth of the
    time of ranking its rows again.
    """
    return [
        _share_in_order(positives, negatives)
        for positives, negatives in _count_ranks(labels, probabilities, rounds)
    ]


def _count_ranks(
    labels: Labels, probabilities: Probabilities, rounds: list[NDArray[np.int64]]
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield for each round how many positive and negative rows have each rank, lowest first."""
    if np.isnan(probabilities).any():
        raise ValueError("a probability is nan")
    ranks = np.unique(probabilities, return_inverse=True)[1]
    levels, positive = int(ranks.max(initial=0)) + 1, labels.astype(bool)
    for rows in rounds:
        drawn, is_positive = ranks[rows], positive[rows]
        yield (
            np.bincount(drawn[is_positive], minlength=levels),
            np.bincount(drawn[~is_positive], minlength=levels),
        )


def _share_in_order(positives: NDArray[np.intp], negatives: NDArray[np.intp]) -> float:
    """Return the share of pairs whose positive row has the higher rank, a tie counted as half."""
    pairs = int(positives.sum()) * int(negatives.sum())
    if not pairs:
        return float("nan")
    return float(positives @ (np.cumsum(negatives) - negatives / 2) / pairs)


def auprc(labels: Labels, probabilities: Probabilities) -> float:
    """Return the average precision: of each rank, its precision by the recall it adds.

    Labels are bool [rows], probabilities float64 [rows]. NaN without a positive row; raises
    ValueError for a probability that is NaN. Source: scikit-learn's average_precision_score.
    """
    return auprc_by_round(labels, probabilities, [np.arange(len(labels))])[0]


def auprc_by_round(
    labels: Labels, probabilities: Probabilities, rounds: list[NDArray[np.int64]]
) -> list[float]:
    """Return the `auprc` of the rows of each round; raises ValueError as it does."""
    return [
        _average_precision(positives[::-1], negatives[::-1])
        for positives, negatives in _count_ranks(labels, probabilities, rounds)
    ]


def _average_precision(positives: NDArray[np.intp], negatives: NDArray[np.intp]) -> float:
    """Return it from counts by rank, the highest rank first."""
    if not positives.sum():
        return float("nan")
    precision = np.cumsum(positives) / np.maximum(np.cumsum(positives + negatives), 1)
    return float(precision @ positives / positives.sum())


def brier(labels: Labels, probabilities: Probabilities) -> float:
    """Return the mean squared error of the probabilities (Brier 1950).

    Labels are bool [rows], probabilities float64 [rows].
    """
    return float(np.mean(np.square(probabilities - labels)))


def measure_slope(labels: Labels, probabilities: Probabilities) -> float:
    return fit_recalibration(labels, probabilities)[0]


def measure_sensitivity(labels: Labels, probabilities: Probabilities, share: float) -> float:
    return measure_top_share(labels, probabilities, share)[0]


def measure_precision(labels: Labels, probabilities: Probabilities, share: float) -> float:
    return measure_top_share(labels, probabilities, share)[1]
