"""The plots a reviewer expects of a release: one function each, none shows a person."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from flows.evaluation.metrics import CALIBRATION_BINS, auprc, auroc, measure_net_benefit
from flows.models.member import Labels, Probabilities
from mlruns_config.release import ReleaseManifest

RELEASE = "release"


def draw_all(
    labels: Labels,
    probabilities: Probabilities,
    by_member: Mapping[str, Probabilities],
    manifest: ReleaseManifest,
) -> dict[str, Figure]:
    """Return every plot by name."""
    curves = {RELEASE: probabilities, **by_member}
    return {
        "roc": draw_roc(labels, curves),
        "precision_recall": draw_precision_recall(labels, curves),
        "calibration": draw_calibration(labels, probabilities),
        "decision_curve": draw_decision_curve(labels, curves),
        "score_distribution": draw_score_distribution(labels, probabilities, manifest),
    }


def draw_roc(labels: Labels, curves: Mapping[str, Probabilities]) -> Figure:
    figure, axes = _open_figure("false positive rate", "sensitivity")
    for name, predicted in curves.items():
        false_positives, sensitivity, _ = roc_curve(labels, predicted)
        axes.plot(false_positives, sensitivity, label=f"{name} {auroc(labels, predicted):.3f}")
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", label="chance 0.500")
    return _close_figure(figure, axes, "ROC, held-out individuals")


def draw_precision_recall(labels: Labels, curves: Mapping[str, Probabilities]) -> Figure:
    figure, axes = _open_figure("sensitivity", "positive predictive value")
    for name, predicted in curves.items():
        precision, recall, _ = precision_recall_curve(labels, predicted)
        axes.plot(recall, precision, label=f"{name} {auprc(labels, predicted):.3f}")
    axes.axhline(labels.mean(), color="grey", linestyle=":", label="prevalence")
    return _close_figure(figure, axes, "Precision and recall, held-out individuals")


def draw_calibration(labels: Labels, probabilities: Probabilities) -> Figure:
    figure, axes = _open_figure("predicted probability", "observed rate")
    order = np.argsort(probabilities, kind="stable")
    bins = np.array_split(order, min(CALIBRATION_BINS, len(order)))
    predicted = [probabilities[rows].mean() for rows in bins]
    axes.plot(predicted, [labels[rows].mean() for rows in bins], marker="o", label=RELEASE)
    axes.plot([0, max(predicted)], [0, max(predicted)], color="grey", linestyle=":", label="ideal")
    return _close_figure(figure, axes, "Calibration by tenths, held-out individuals")


def draw_decision_curve(labels: Labels, curves: Mapping[str, Probabilities]) -> Figure:
    figure, axes = _open_figure("threshold probability", "net benefit")
    thresholds = np.linspace(0.01, 0.6, 60)
    everyone = dict.fromkeys(["review everyone"], np.ones(len(labels)))
    for name, predicted in (dict(curves) | everyone).items():
        benefits = [measure_net_benefit(labels, predicted, threshold) for threshold in thresholds]
        axes.plot(thresholds, benefits, label=name)
    axes.axhline(0, color="grey", linestyle=":", label="review nobody")
    axes.set_ylim(bottom=-0.02)
    return _close_figure(figure, axes, "Decision curve, held-out individuals")


def draw_score_distribution(
    labels: Labels, probabilities: Probabilities, manifest: ReleaseManifest
) -> Figure:
    figure, axes = _open_figure("score", "share of individuals")
    scores = np.interp(probabilities, manifest.score_map.probabilities, manifest.score_map.scores)
    for outcome, name in ((False, "did not deteriorate"), (True, "deteriorated")):
        chosen = scores[labels == outcome]
        weights = np.full(len(chosen), 1 / len(chosen))
        axes.hist(chosen, bins=list(range(0, 105, 5)), weights=weights, alpha=0.6, label=name)
    return _close_figure(figure, axes, "Score by outcome, held-out individuals")


def _open_figure(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return figure, axes


def _close_figure(figure: Figure, axes: Axes, title: str) -> Figure:
    axes.set_title(title)
    axes.legend(loc="best", fontsize="small")
    return figure
