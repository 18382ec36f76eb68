"""The plots a reviewer expects of a release: one function each, none shows a person."""

from collections.abc import Mapping

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from flows.datasets.rows import Labels, Probabilities
from flows.evaluation.metrics import CALIBRATION_BINS, auprc, auroc
from mlruns_config.manifest import ReleaseManifest

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


def draw_tables(
    tables: Mapping[str, pl.DataFrame], metrics: Mapping[str, float]
) -> dict[str, Figure]:
    """Return the plots of an evaluation's tables by name."""
    return {
        "decision_curve": draw_decision_curve(tables["decision_curve"]),
        "smooth_calibration": draw_smooth_calibration(tables["smooth_calibration"]),
        "subgroups": draw_subgroups(tables["fairness"], metrics["auroc"]),
    }


def draw_smooth_calibration(curve: pl.DataFrame) -> Figure:
    """Draw the table of `draw_smooth_curve`: the curve with its interval."""
    figure, axes = _open_figure("predicted probability", "observed rate")
    axes.fill_between(
        curve["predicted"], curve["low"], curve["high"], alpha=0.25, label="95 % by individual"
    )
    axes.plot(curve["predicted"], curve["observed"], label=RELEASE)
    most = float(curve["predicted"].to_numpy().max())
    axes.plot([0, most], [0, most], color="grey", linestyle=":", label="ideal")
    return _close_figure(figure, axes, "Smooth calibration, held-out individuals")


def draw_decision_curve(benefits: pl.DataFrame) -> Figure:
    """Draw the table of `measure_decision_curve`."""
    figure, axes = _open_figure("threshold probability", "net benefit")
    names = {"all": "review everyone", "none": "review none"}
    for (model,), curve in benefits.group_by("model", maintain_order=True):
        style = ":" if model in names else "-"
        label = names.get(str(model), str(model))
        axes.plot(curve["threshold"], curve["net_benefit"], linestyle=style, label=label)
    axes.set_ylim(bottom=-0.02)
    return _close_figure(figure, axes, "Decision curve, held-out individuals")


def draw_subgroups(groups: pl.DataFrame, overall: float) -> Figure:
    """Draw the AUROC of each group with its interval: a forest plot."""
    figure = Figure(figsize=(8, max(3.0, 0.27 * groups.height + 1.5)), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel("AUROC with 95 % interval by individual")
    axes.set_ylabel("group (rows)")
    axes.axvline(overall, color="grey", linestyle=":", label=f"all {overall:.3f}")
    labels = []
    for place, row in enumerate(groups.iter_rows(named=True)):
        axes.plot([row["auroc_low"], row["auroc_high"]], [place, place], color="tab:blue")
        axes.plot([row["auroc"]], [place], marker="s", color="tab:blue")
        labels.append(f"{row['attribute']}: {row['group']} ({row['rows']})")
    axes.set_yticks(range(len(labels)), labels, fontsize="x-small")
    axes.invert_yaxis()
    return _close_figure(figure, axes, "Discrimination by group, held-out individuals")


def draw_score_distribution(
    labels: Labels, probabilities: Probabilities, manifest: ReleaseManifest
) -> Figure:
    figure, axes = _open_figure("score", "share of individuals")
    scores = manifest.score_map.apply(probabilities)
    for outcome, name in ((False, "without the outcome"), (True, "with the outcome")):
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
