"""Discrimination and calibration of a release in use, overall and by group."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from feature_repo.stored_views import JOIN_KEY
from flows.datasets.rows import Labels, Probabilities
from flows.evaluation.fairness import GROUP_ROUNDS, PROTECTED, name_groups
from flows.evaluation.metrics import (
    BOOTSTRAP_ROUNDS,
    auroc,
    bootstrap_interval,
    draw_bootstrap_rows,
    measure_slope,
)
from monitoring.outcome_drift import GroupDrift, OutcomeDrift, Performance, is_enough
from serving.predictions.drift_records import LabelledSample

SEED = 0
Mix = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Labelled:
    """Labelled screenings as arrays of one length."""

    labels: Labels
    probabilities: Probabilities
    individuals: NDArray[np.str_]

    @classmethod
    def of(cls, sample: LabelledSample) -> "Labelled":
        return cls(
            np.array(sample.occurred, dtype=np.bool_),
            np.array(sample.probabilities, dtype=np.float64),
            np.array(sample.individuals, dtype=np.str_),
        )

    def select(self, rows: NDArray[np.bool_]) -> "Labelled":
        return Labelled(self.labels[rows], self.probabilities[rows], self.individuals[rows])

    @property
    def outcomes(self) -> int:
        return int(self.labels.sum())


def measure_outcomes(sample: LabelledSample, metrics_then: Mapping[str, float]) -> OutcomeDrift:
    """Compare labelled screenings with the metrics of the release's training run."""
    labelled = Labelled.of(sample)
    return OutcomeDrift(
        labels=len(labelled.labels),
        outcomes=labelled.outcomes,
        performance=measure_performance(labelled),
        auroc_then=metrics_then.get("auroc"),
        auroc_low_then=metrics_then.get("auroc_interval_low"),
    )


def measure_performance(labelled: Labelled, rounds: int = BOOTSTRAP_ROUNDS) -> Performance | None:
    """Return how a release did, None where there are too few labels to tell."""
    labels, probabilities = labelled.labels, labelled.probabilities
    if not is_enough(len(labels), labelled.outcomes):
        return None
    drawn = draw_bootstrap_rows(labelled.individuals, SEED, rounds)
    low, high = bootstrap_interval(auroc, labels, probabilities, drawn)
    ratio_low, ratio_high = bootstrap_interval(measure_ratio, labels, probabilities, drawn)
    return Performance(
        auroc=auroc(labels, probabilities),
        auroc_low=low,
        auroc_high=high,
        observed=float(labels.mean()),
        expected=float(probabilities.mean()),
        ratio_low=ratio_low,
        ratio_high=ratio_high,
        calibration_slope=measure_slope(labels, probabilities),
    )


def measure_ratio(labels: Labels, probabilities: Probabilities) -> float:
    """Return observed over expected outcomes.

    Labels are bool [rows], probabilities float64 [rows].
    """
    return float(labels.mean() / max(probabilities.mean(), 1e-9))


def measure_groups(
    screened: pl.DataFrame, sample: LabelledSample, people: pl.DataFrame, then: Mix
) -> list[GroupDrift]:
    """Describe every group of those screened, by attribute and name.

    `screened` has anonymized_id and age of a sample of the window's screenings; `people` sex and
    ethnicity; `then` the share of each group at training.
    """
    now = name_groups(screened, people)
    frame = pl.DataFrame(
        {JOIN_KEY: sample.individuals, "age": sample.ages},
        schema={JOIN_KEY: pl.String, "age": pl.Float64},
    )
    labelled = name_groups(frame, people)
    everybody = Labelled.of(sample)
    return [
        GroupDrift(
            attribute=attribute,
            group=group,
            share=(now[attribute] == group).sum() / max(now.height, 1),
            share_then=then[attribute].get(group, 0.0) if attribute in then else None,
            rows=now.height,
            labels=len(group_labelled.labels),
            outcomes=group_labelled.outcomes,
            performance=measure_performance(group_labelled, GROUP_ROUNDS),
        )
        for attribute in PROTECTED
        for group in sorted({*now[attribute], *labelled[attribute], *then.get(attribute, {})})
        for group_labelled in [everybody.select((labelled[attribute] == group).to_numpy())]
    ]


def describe_outcomes(outcome_drift: OutcomeDrift, groups: Sequence[GroupDrift]) -> str:
    """Return outcomes and groups as Markdown."""
    lines = [
        f"Outcomes: {outcome_drift.describe()}.",
        "",
        "| group | share | at training | labels | AUROC | observed / expected | drifted |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for group in groups:
        then = "" if group.share_then is None else f"{group.share_then:.0%}"
        performance = group.performance
        measured = (
            f"{performance.auroc:.3f} | {performance.ratio:.2f}"
            if performance
            else "too few labels | "
        )
        drifted = [name for name in ("mix", "calibration") if getattr(group, f"{name}_drifted")]
        lines.append(
            f"| {group.attribute}: {group.group} | {group.share:.0%} | {then} | {group.labels} | "
            f"{measured} | {', '.join(drifted)} |"
        )
    return "\n".join(lines)
