"""A challenger beside the Production release on the same held-out individuals.

Both are scored as they lie in the registry, on rows of individuals that no release has ever
learnt from: the split goes by hash of the pseudonym. Differences are paired, with intervals by
bootstrap of individuals; the gates `versus_production` limit them.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from mlflow import MlflowClient

from feature_repo.individual import JOIN_KEY
from flows.datasets.training_set import TrainingSet
from flows.evaluation.metrics import (
    Interval,
    Metric,
    OneSidedLabelsError,
    auprc,
    auroc,
    bootstrap_difference,
    brier,
    draw_bootstrap_rows,
)
from flows.models.registered import RegisteredRelease
from mlruns_config.gates import COMPARED_WITH

#: Of Brier less is better; of the others more.
COMPARED: dict[str, Metric] = {"auroc": auroc, "auprc": auprc, "brier": brier}
#: One for all comparisons: asked again of the same data, they say the same.
SEED = 7


@dataclass(frozen=True)
class Difference:
    """A metric of both releases on the same rows; `interval` is of challenger minus Production."""

    challenger: float
    production: float
    interval: Interval

    @property
    def gain(self) -> float:
        return self.challenger - self.production


@dataclass(frozen=True)
class Comparison:
    """What two releases come to on the same rows, by metric."""

    challenger: int
    production: int
    rows: int
    individuals: int
    outcomes: int
    differences: dict[str, Difference]

    def to_metrics(self) -> dict[str, float]:
        metrics = {COMPARED_WITH: float(self.production)}
        for name, found in self.differences.items():
            metrics |= {
                f"{name}_vs_production": found.gain,
                f"{name}_vs_production_low": found.interval[0],
                f"{name}_vs_production_high": found.interval[1],
            }
        return metrics

    def to_markdown(self) -> str:
        lines = [
            f"Release {self.challenger} beside release {self.production} (Production) on the same "
            f"{self.rows:,} rows of {self.individuals:,} held-out individuals, {self.outcomes:,} "
            "with the outcome.",
            "",
            "| metric | challenger | Production | difference | 95 % interval |",
            "|---|---:|---:|---:|---|",
        ]
        for name, found in self.differences.items():
            low, high = found.interval
            lines.append(
                f"| {name} | {found.challenger:.4f} | {found.production:.4f} | "
                f"{found.gain:+.4f} | {low:+.4f} to {high:+.4f} |"
            )
        return "\n".join(lines)


def compare_releases(
    training_set: TrainingSet, challenger: RegisteredRelease, production: RegisteredRelease
) -> Comparison:
    """Score the held-out rows with both; raises OneSidedLabelsError where one outcome is absent."""
    chosen = training_set.split.held_out
    labels, rows = training_set.labels[chosen], training_set.rows.select(chosen)
    if labels.all() or not labels.any():
        raise OneSidedLabelsError(f"all {len(labels)} held-out rows have the same outcome")
    people = training_set.frame.filter(pl.Series(chosen))[JOIN_KEY]
    rounds = draw_bootstrap_rows(people.to_numpy().astype(np.str_), SEED)
    ours, theirs = challenger.predict(rows), production.predict(rows)
    return Comparison(
        challenger=challenger.version,
        production=production.version,
        rows=len(labels),
        individuals=people.n_unique(),
        outcomes=int(labels.sum()),
        differences={
            name: Difference(
                metric(labels, ours),
                metric(labels, theirs),
                bootstrap_difference(metric, labels, ours, theirs, rounds),
            )
            for name, metric in COMPARED.items()
        },
    )


def log_comparison(client: MlflowClient, run_id: str, comparison: Comparison) -> None:
    """Log metrics and table to the challenger's run, whether it has ended or not."""
    for name, value in comparison.to_metrics().items():
        client.log_metric(run_id, name, value)
    table = "evaluation/versus_production.md"
    client.log_text(run_id, comparison.to_markdown(), table)
