"""The evaluation of a release on held-out individuals, logged to its MLflow run."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import matplotlib

matplotlib.use("Agg")  # before anything draws: a worker has no screen

import mlflow
import polars as pl
from matplotlib.figure import Figure

from feature_repo.catalogue import list_model_inputs
from flows.datasets.training_set import TrainingSet
from flows.evaluation import plots
from flows.evaluation.certainty import measure_certainty
from flows.evaluation.described_data import (
    describe_baseline,
    describe_exclusions,
    describe_outcome,
    describe_parts,
)
from flows.evaluation.explanations import draw_bar, draw_beeswarm, explain_trees
from flows.evaluation.held_out import HeldOut, measure_without_data, score_held_out
from flows.evaluation.judgeable import judge_patterns
from flows.evaluation.measures import measure_scored, name_interval_metrics
from flows.evaluation.members import compare_members, name_member_metrics
from flows.evaluation.metrics import Interval, measure_decision_curve
from flows.evaluation.noise_floor import measure_noise_floor
from flows.evaluation.releasing import LearntRelease
from flows.evaluation.severity import compare_expected, find_worst_ratio, predict_patterns
from flows.evaluation.smooth_calibration import draw_smooth_curve
from flows.evaluation.worsening import measure_worsening
from flows.models.lightgbm import BoostedTrees
from flows.models.member import FittedMember
from mlruns_config.manifest import ReleaseManifest

if TYPE_CHECKING:
    from flows.models.forecasting import ForecastingMember


@dataclass(frozen=True)
class Evaluation:
    """Metrics by name, a 95 % interval for some, tables and plots.

    Tables: `fairness` by group, `decision_curve`, `members` with what each costs and adds,
    `calibration` with outcomes expected and observed by severity and pattern, `coverage` of the
    interval about one person by severity, `not_judged` with groups that are too few for the
    gates, `smooth_calibration`; `parts`, `baseline`, `outcome` and `excluded` describe the data,
    `learning_curve` what more people would bring. One that does not apply is absent or empty.
    """

    metrics: dict[str, float]
    intervals: dict[str, Interval]
    tables: dict[str, pl.DataFrame]
    figures: dict[str, Figure]

    def get_table(self, name: str) -> pl.DataFrame:
        """Return a table; an empty one where it does not apply."""
        return self.tables.get(name, pl.DataFrame())

    def add_table(self, name: str, table: pl.DataFrame) -> "Evaluation":
        """Return the evaluation with one more table."""
        return replace(self, tables=self.tables | {name: table})

    def to_markdown(self) -> str:
        return describe_metrics(self.metrics, self.intervals)


def describe_metrics(metrics: Mapping[str, float], intervals: Mapping[str, Interval]) -> str:
    """Return metrics, with the interval of some, as a table (Markdown)."""
    lines = ["| metric | value | 95 % interval |", "|---|---:|---|"]
    for name, value in metrics.items():
        low_high = intervals.get(name)
        interval = f"{low_high[0]:.3f} to {low_high[1]:.3f}" if low_high else ""
        lines.append(f"| {name} | {value:.3f} | {interval} |")
    return "\n".join(lines)


def evaluate_release(
    training_set: TrainingSet,
    people: pl.DataFrame,
    learnt: LearntRelease,
    seed: int,
) -> Evaluation:
    """Evaluate a release on individuals and months that nothing of it has seen.

    `people` (anonymized_id, sex, ethnicity) gives their subgroups.
    """
    members, manifest = learnt.priority.members, learnt.manifest
    held_out = score_held_out(training_set, members, manifest, seed)
    measures = measure_scored(held_out, people, manifest)
    costs = compare_members(held_out, members, manifest, learnt.priority.decisions)
    certainty, coverage = measure_certainty(held_out, learnt)
    by_pattern = predict_patterns(members, manifest, held_out.rows)
    calibration = compare_expected(held_out, by_pattern)
    metrics = measures.metrics | certainty | name_member_metrics(costs)
    metrics |= measure_without_data(held_out, members, manifest) | find_worst_ratio(calibration)
    metrics |= judge_patterns(held_out, by_pattern)
    metrics |= measure_worsening(training_set, learnt) | measure_noise_floor(training_set, seed)
    metrics |= {
        "adjudicated_share": training_set.adjudicated_rows / max(training_set.frame.height, 1),
        "held_out_rows": float(len(held_out.labels)),
        "rows": float(training_set.frame.height),
    }
    tables = {
        **measures.tables,
        "members": costs,
        "calibration": calibration,
        "coverage": coverage,
        **tabulate_curves(held_out),
        **describe_data(training_set, people),
    }
    figures = draw_figures(held_out, members, manifest, seed) | plots.draw_tables(tables, metrics)
    return Evaluation(metrics, measures.intervals, tables, figures)


def tabulate_curves(held_out: HeldOut) -> dict[str, pl.DataFrame]:
    """Return the curves of decisions and of smooth calibration as tables."""
    labels, probabilities = held_out.labels, held_out.probabilities
    curves = {plots.RELEASE: probabilities, **held_out.by_member}
    return {
        "decision_curve": measure_decision_curve(labels, curves),
        "smooth_calibration": draw_smooth_curve(labels, probabilities, held_out.rounds),
    }


def describe_data(training_set: TrainingSet, people: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Return what a reader asks of the data: parts, baseline, outcome, what was left out."""
    return {
        "parts": describe_parts(training_set),
        "baseline": describe_baseline(training_set, people),
        "outcome": describe_outcome(training_set),
        "excluded": describe_exclusions(training_set),
    }


def draw_figures(
    held_out: HeldOut, members: Mapping[str, FittedMember], manifest: ReleaseManifest, seed: int
) -> dict[str, Figure]:
    """Return every plot of a release by name."""
    figures = plots.draw_all(held_out.labels, held_out.probabilities, held_out.by_member, manifest)
    for member in members.values():
        if member.pictures == "attributions":
            figures |= draw_attributions(cast("BoostedTrees", member), held_out, seed)
        elif member.pictures == "attention":
            figures |= draw_attention_of(cast("ForecastingMember", member), held_out)
    return figures


def draw_attributions(trees: BoostedTrees, held_out: HeldOut, seed: int) -> dict[str, Figure]:
    words = [column.label for column in list_model_inputs()]
    explanation = explain_trees(trees, held_out.rows.features, words, seed)
    return {"shap_beeswarm": draw_beeswarm(explanation), "shap_bar": draw_bar(explanation)}


def draw_attention_of(network: "ForecastingMember", held_out: HeldOut) -> dict[str, Figure]:
    # Imported late: without a transformer nothing here needs torch.
    from flows.models.tft import draw_attention, draw_variable_importance

    return {
        "tft_variable_importance": draw_variable_importance(network, held_out.rows),
        "tft_attention": draw_attention(network, held_out.rows),
    }


def log_evaluation(evaluation: Evaluation) -> None:
    """Log metrics, intervals, fairness table and plots to the active MLflow run."""
    mlflow.log_metrics(evaluation.metrics | name_interval_metrics(evaluation.intervals))
    for name, table in evaluation.tables.items():
        mlflow.log_text(table.write_csv(), f"evaluation/{name}.csv")
    mlflow.log_text(evaluation.to_markdown(), "evaluation/metrics.md")
    for name, figure in evaluation.figures.items():
        mlflow.log_figure(figure, f"plots/{name}.png", save_kwargs={"bbox_inches": "tight"})
