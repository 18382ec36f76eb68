"""The measures of a release on scored rows, at training and on rows that it was not trained on."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from flows.evaluation.fairness import compare_groups, describe_groups, find_worst
from flows.evaluation.held_out import (
    REVIEW_EDGE,
    HeldOut,
    compare_net_benefit,
    compare_with_baseline,
    measure_intervals,
    measure_operating_points,
)
from flows.evaluation.judgeable import bound_ratio, measure_judged
from flows.evaluation.metrics import Interval, compute_metrics
from flows.evaluation.severity import compare_with_phq9_alone
from flows.evaluation.smooth_calibration import measure_distance
from flows.models.families import BASELINE
from mlruns_config.manifest import ReleaseManifest


@dataclass(frozen=True)
class Measures:
    """Metrics under the names that the gates use, 95 % intervals, and tables of groups.

    Tables: `fairness` by group, `not_judged` with groups that are too few for the gates.
    """

    metrics: dict[str, float]
    intervals: dict[str, Interval]
    tables: dict[str, pl.DataFrame]


def measure_scored(scored: HeldOut, people: pl.DataFrame, manifest: ReleaseManifest) -> Measures:
    """Return discrimination, calibration, usefulness and groups, with intervals by individual.

    `people` (anonymized_id, sex, ethnicity) gives their subgroups. Gains over the baseline are
    absent where `scored` has no predictions of it. Raises OneSidedLabelsError.
    """
    described = describe_groups(scored, people)
    groups = compare_groups(described, scored, manifest.score_map.probabilities[REVIEW_EDGE])
    judged = measure_judged(scored, described, manifest)
    alone, alone_intervals = compare_with_phq9_alone(scored)
    intervals = measure_intervals(scored) | alone_intervals
    intervals["observed_over_expected"] = bound_ratio(scored, np.ones(len(scored.labels), bool))
    metrics = compute_metrics(scored.labels, scored.probabilities)
    metrics["observed_over_expected"] = float(scored.labels.sum() / scored.probabilities.sum())
    metrics |= measure_operating_points(scored, manifest) | compare_net_benefit(scored, manifest)
    metrics |= find_worst(groups) | judged.metrics | alone
    metrics |= measure_distance(scored.labels, scored.probabilities)
    if BASELINE in scored.by_member:
        metrics |= compare_with_baseline(scored)
    metrics |= name_bounds(intervals)
    return Measures(metrics, intervals, {"fairness": groups, "not_judged": judged.not_judged})


def name_bounds(intervals: dict[str, Interval]) -> dict[str, float]:
    """Return the ends of intervals that gates ask for, by the gates' names."""
    asked = ("auroc", "auroc_gain", "auroc_gain_over_phq9")
    named = {f"{name}_low": intervals[name][0] for name in asked if name in intervals}
    low, high = intervals["calibration_slope"]
    return named | {"calibration_slope_low": low, "calibration_slope_high": high}


def name_interval_metrics(intervals: dict[str, Interval]) -> dict[str, float]:
    """Return the ends of all intervals as they are logged, `<metric>_interval_low` and `_high`."""
    ends = ("low", "high")
    return {
        f"{name}_interval_{end}": value
        for name, bounds in intervals.items()
        for end, value in zip(ends, bounds, strict=True)
    }
