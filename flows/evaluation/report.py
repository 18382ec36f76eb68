"""The evaluation of a release on held-out individuals, logged to its MLflow run."""

from collections.abc import Mapping
from dataclasses import dataclass

import matplotlib

matplotlib.use("Agg")

import mlflow
import numpy as np
import polars as pl
from matplotlib.figure import Figure

from feature_repo.individual import JOIN_KEY
from flows.evaluation import plots
from flows.evaluation.fairness import compare_groups, describe_groups, find_worst
from flows.evaluation.metrics import (
    Interval,
    auprc,
    auroc,
    bootstrap_difference,
    bootstrap_interval,
    compute_metrics,
    draw_bootstrap_rows,
    measure_net_benefit,
    prefix,
)
from flows.lake import scan_table
from flows.models.member import FittedMember, Labels, Probabilities
from flows.models.release import predict_all, predict_release
from flows.training_set import TrainingSet
from mlruns_config.release import ReleaseManifest
from serving.settings import get_settings

YARDSTICK = "logistic_regression"
#: Index of the score map's edge 75, the default review threshold.
REVIEW_EDGE = 3


@dataclass(frozen=True)
class Evaluation:
    """Metrics by name, a 95 % interval for some, the fairness table and the plots."""

    metrics: dict[str, float]
    intervals: dict[str, Interval]
    groups: pl.DataFrame
    figures: dict[str, Figure]

    def to_markdown(self) -> str:
        lines = ["| metric | value | 95 % interval |", "|---|---:|---|"]
        for name, value in self.metrics.items():
            low_high = self.intervals.get(name)
            interval = f"{low_high[0]:.3f} to {low_high[1]:.3f}" if low_high else ""
            lines.append(f"| {name} | {value:.3f} | {interval} |")
        return "\n".join(lines)


def evaluate_release(
    training_set: TrainingSet,
    members: Mapping[str, FittedMember],
    manifest: ReleaseManifest,
    seed: int,
) -> Evaluation:
    """Judge a release on individuals and months that nothing of it has seen."""
    held_out = training_set.split.held_out
    rows, labels = training_set.rows.select(held_out), training_set.labels[held_out]
    frame = training_set.frame.filter(pl.Series(held_out))
    probabilities = predict_release(members, manifest, rows)
    by_member = predict_all(members, rows)
    threshold = manifest.score_map.probabilities[REVIEW_EDGE]
    people = scan_table(get_settings().lake_url, "people").collect()
    groups = compare_groups(describe_groups(frame, people), labels, probabilities, threshold)
    metrics = compute_metrics(labels, probabilities)
    for name, predicted in by_member.items():
        metrics |= prefix(
            name, {"auroc": auroc(labels, predicted), "auprc": auprc(labels, predicted)}
        )
    metrics |= find_worst(groups) | compare_net_benefit(labels, probabilities, threshold)
    rounds = draw_bootstrap_rows(frame[JOIN_KEY].to_numpy().astype(np.str_), seed)
    gain = bootstrap_difference(auroc, labels, probabilities, by_member[YARDSTICK], rounds)
    metrics |= {
        "auroc_gain": metrics["auroc"] - metrics[f"{YARDSTICK}_auroc"],
        "auroc_gain_low": gain[0],
        "held_out_rows": float(len(labels)),
    }
    intervals = {
        "auroc": bootstrap_interval(auroc, labels, probabilities, rounds),
        "auprc": bootstrap_interval(auprc, labels, probabilities, rounds),
        "auroc_gain": gain,
    }
    figures = plots.draw_all(labels, probabilities, by_member, manifest)
    return Evaluation(metrics, intervals, groups, figures)


def compare_net_benefit(
    labels: Labels, probabilities: Probabilities, threshold: float
) -> dict[str, float]:
    """Return the net benefit at the review threshold and its gain over all-or-nobody."""
    ours = measure_net_benefit(labels, probabilities, threshold)
    everyone = measure_net_benefit(labels, np.ones_like(probabilities), threshold)
    return {"net_benefit": ours, "net_benefit_gain": ours - max(everyone, 0.0)}


def log_evaluation(evaluation: Evaluation) -> None:
    """Log metrics, intervals, fairness table and plots to the active MLflow run."""
    mlflow.log_metrics(evaluation.metrics)
    for name, (low, high) in evaluation.intervals.items():
        mlflow.log_metrics({f"{name}_interval_low": low, f"{name}_interval_high": high})
    mlflow.log_text(evaluation.groups.write_csv(), "evaluation/fairness.csv")
    mlflow.log_text(evaluation.to_markdown(), "evaluation/metrics.md")
    for name, figure in evaluation.figures.items():
        mlflow.log_figure(figure, f"plots/{name}.png")
