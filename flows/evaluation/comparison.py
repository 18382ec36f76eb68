"""A challenger beside the Production release on the same held-out individuals.

Both are scored as they were evaluated, on rows of individuals that no evaluated release has
learnt from: the split goes by hash of the pseudonym. Differences are paired, with intervals by
bootstrap of individuals; the gates `versus_production` limit them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
from mlflow import MlflowClient

from feature_repo.stored_views import JOIN_KEY
from flows.datasets.rows import Labels, Probabilities, number_individuals
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
from mlruns_config.gates import BEST_SO_FAR, COMPARED_WITH

#: Of Brier less is better; of the others more.
COMPARED: dict[str, Metric] = {"auroc": auroc, "auprc": auprc, "brier": brier}
#: One seed for all comparisons: the same data give the same result.
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
    #: The release that ranks these rows best of those that have been in Production.
    best: int
    versus_best: Difference
    #: Whose rows they are.
    source: str = "held-out individuals"

    def to_metrics(self) -> dict[str, float]:
        metrics = {
            COMPARED_WITH: float(self.production),
            BEST_SO_FAR: float(self.best),
            "auroc_vs_best": self.versus_best.gain,
            "auroc_vs_best_low": self.versus_best.interval[0],
        }
        for name, difference in self.differences.items():
            metrics |= {
                f"{name}_vs_production": difference.gain,
                f"{name}_vs_production_low": difference.interval[0],
                f"{name}_vs_production_high": difference.interval[1],
            }
        return metrics

    def to_markdown(self) -> str:
        lines = [
            f"Release {self.challenger} beside release {self.production} (Production) on the same "
            f"{self.rows:,} rows of {self.individuals:,} {self.source}, {self.outcomes:,} "
            "with the outcome.",
            "",
            "| metric | challenger | Production | difference | 95 % interval |",
            "|---|---:|---:|---:|---|",
        ]
        for name, difference in self.differences.items():
            low, high = difference.interval
            lines.append(
                f"| {name} | {difference.challenger:.4f} | {difference.production:.4f} | "
                f"{difference.gain:+.4f} | {low:+.4f} to {high:+.4f} |"
            )
        low, high = self.versus_best.interval
        lines += [
            "",
            f"Best so far on these rows is release {self.best}: AUROC "
            f"{self.versus_best.gain:+.4f} ({low:+.4f} to {high:+.4f}) over it.",
        ]
        return "\n".join(lines)


def compare_releases(
    training_set: TrainingSet,
    challenger: RegisteredRelease,
    production: RegisteredRelease,
    earlier: Sequence[RegisteredRelease] = (),
) -> Comparison:
    """Score the held-out rows with all; raises OneSidedLabelsError where one outcome is absent.

    `earlier` have been in Production before: against the last one alone, ten releases could each
    lose a little.
    """
    chosen = training_set.split.held_out
    labels, rows = training_set.labels[chosen], training_set.rows.select(chosen)
    if labels.all() or not labels.any():
        raise OneSidedLabelsError(f"all {len(labels)} held-out rows have the same outcome")
    people = training_set.frame.filter(pl.Series(chosen))[JOIN_KEY]
    theirs = {release.version: release.predict(rows) for release in (production, *earlier)}
    scored = ComparedRows(labels, people, challenger.predict(rows), theirs)
    return compare_predictions(scored, challenger.version, production.version)


@dataclass(frozen=True)
class ComparedRows:
    """Rows that no compared release was trained on, with the probabilities of each.

    `labels` bool [rows], `people` their individuals, `ours` of the challenger and `theirs` of
    the others by version float64 [rows].
    """

    labels: Labels
    people: pl.Series
    ours: Probabilities
    theirs: dict[int, Probabilities]


def compare_predictions(scored: ComparedRows, challenger: int, production: int) -> Comparison:
    """Compare a challenger with Production and with the best of all others on the same rows."""
    labels, ours, theirs = scored.labels, scored.ours, scored.theirs
    rounds = draw_bootstrap_rows(number_individuals(scored.people), SEED)
    best = max(theirs, key=lambda version: auroc(labels, theirs[version]))

    def differ(metric: Metric, rival: Probabilities) -> Difference:
        interval = bootstrap_difference(metric, labels, ours, rival, rounds)
        return Difference(metric(labels, ours), metric(labels, rival), interval)

    return Comparison(
        challenger=challenger,
        production=production,
        rows=len(labels),
        individuals=scored.people.n_unique(),
        outcomes=int(labels.sum()),
        differences={name: differ(metric, theirs[production]) for name, metric in COMPARED.items()},
        best=best,
        versus_best=differ(auroc, theirs[best]),
    )


def log_comparison(client: MlflowClient, run_id: str, comparison: Comparison) -> None:
    """Log metrics and table to the challenger's run, whether it has ended or not."""
    for name, value in comparison.to_metrics().items():
        client.log_metric(run_id, name, value)
    table = "evaluation/versus_production.md"
    client.log_text(run_id, comparison.to_markdown(), table)
