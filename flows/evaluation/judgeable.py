"""Metrics of the gates as intervals: a bound that chance alone cannot pass or fail.

Intervals are of 95 %, by bootstrap of individuals. A group too small to be judged is listed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from flows.datasets.rows import Labels, Probabilities
from flows.evaluation.fairness import MIN_GROUP, MIN_OUTCOMES, PROTECTED
from flows.evaluation.held_out import HeldOut
from flows.evaluation.metrics import (
    Interval,
    auroc,
    bootstrap_interval,
    bootstrap_metric,
    measure_net_benefit,
    take_compared_interval,
    take_interval,
)
from flows.evaluation.severity import SEVERITY_GROUPS, read_totals
from mlruns_config.manifest import ReleaseManifest

#: Observed over expected outcomes that a group's interval must meet.
TOLERATED_RATIO = (0.8, 1.25)
#: Fewer expected outcomes than this tell nothing of a ratio: the chance of 20 is a fifth.
MIN_EXPECTED = 20
#: Indices of the score map's edges 50 and 75, which put people into the queue.
QUEUE_EDGES = (2, 3)

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Judged:
    """Metrics of the gates, and the groups that were too small."""

    metrics: dict[str, float]
    not_judged: pl.DataFrame


def measure_judged(held_out: HeldOut, groups: pl.DataFrame, manifest: ReleaseManifest) -> Judged:
    """Return the metrics of the gates; `groups` are PROTECTED of each held-out row."""
    severity, few_severe = judge_severity(held_out)
    fairness, few_people = judge_groups(held_out, groups, manifest)
    low, high = bound_ratio(held_out, np.ones(len(held_out.labels), dtype=bool))
    overall = {"observed_over_expected_low": low, "observed_over_expected_high": high}
    not_judged = pl.DataFrame(
        [*few_severe, *few_people],
        schema={"attribute": pl.String, "group": pl.String, "rows": pl.Int64, "outcomes": pl.Int64},
    )
    metrics = overall | severity | fairness | judge_benefit(held_out, manifest)
    return Judged(metrics | {"groups_not_judged": float(not_judged.height)}, not_judged)


def judge_severity(held_out: HeldOut) -> tuple[dict[str, float], list[dict[str, object]]]:
    """Return how far the worst severity group's ratio lies outside of TOLERATED_RATIO.

    `severity_ratio_miss` is 0 where each interval meets it, else a factor's natural logarithm.
    """
    totals = read_totals(held_out)
    misses, few = [], []
    for name, least, most in SEVERITY_GROUPS:
        chosen = (totals >= least) & (totals <= most)
        if held_out.probabilities[chosen].sum() < MIN_EXPECTED:
            few.append(_describe("severity", name, held_out.labels[chosen]))
        else:
            misses.append(measure_miss(bound_ratio(held_out, chosen)))
    return ({"severity_ratio_miss": max(misses)} if misses else {}), few


def judge_patterns(held_out: HeldOut, by_pattern: Mapping[str, Probabilities]) -> dict[str, float]:
    """Return `pattern_ratio_miss`: as `severity_ratio_miss`, of all rows in each missing pattern.

    `by_pattern` is what `predict_patterns` returns for the held-out rows.
    """
    everyone = np.ones(len(held_out.labels), dtype=bool)
    ratios = [
        bound_ratio(replace(held_out, probabilities=probabilities), everyone)
        for probabilities in by_pattern.values()
    ]
    return {"pattern_ratio_miss": max(measure_miss(ratio) for ratio in ratios)}


def measure_miss(interval: Interval) -> float:
    """Return how far an interval of a ratio lies outside of TOLERATED_RATIO, as a logarithm."""
    low, high = (np.log(max(end, 1e-9)) for end in interval)
    least, most = np.log(TOLERATED_RATIO)
    return float(max(least - high, low - most, 0.0))


def bound_ratio(held_out: HeldOut, chosen: Mask) -> Interval:
    """Return the interval of observed over expected outcomes of the chosen rows.

    The mask is bool [rows].
    """
    return _bootstrap(
        held_out,
        chosen,
        lambda labels, probabilities: labels.sum() / max(probabilities.sum(), 1e-9),
    )


def judge_groups(
    held_out: HeldOut, groups: pl.DataFrame, manifest: ReleaseManifest
) -> tuple[dict[str, float], list[dict[str, object]]]:
    """Return the upper ends of the worst group's AUROC and relative recall.

    Relative recall is the share of outcomes at or above the edge 50 in a group, divided by that
    of all others. The upper end is judged: only a group that is surely worse fails a release. The
    intervals of all groups hold together, so that more groups do not mean more refusals by chance.
    """
    threshold = manifest.score_map.probabilities[QUEUE_EDGES[0]]
    judged, few = [], []
    for attribute in PROTECTED:
        values = groups[attribute].to_numpy()
        for group in np.unique(values):
            inside = values == group
            labels = held_out.labels[inside]
            if len(labels) < MIN_GROUP or labels.sum() < MIN_OUTCOMES:
                few.append(_describe(attribute, str(group), labels))
            else:
                judged.append(inside)
    if not judged:
        return {}, few
    count = len(judged)
    recalls = [bound_relative_recall(held_out, inside, threshold, count)[1] for inside in judged]
    areas = [_bound_area(held_out, inside, count)[1] for inside in judged]
    return {
        "worst_group_auroc_high": min(areas),
        "worst_group_recall_high": float(np.min(recalls)),
    }, few


def bound_relative_recall(
    held_out: HeldOut, inside: Mask, threshold: float, compared: int
) -> Interval:
    """Return the interval of a group's recall over that of everyone else.

    The mask is bool [rows]; the group is one of `compared`. NaN where no outcome of the others is
    flagged: a gate fails then.
    """
    if inside.all():
        return (1.0, 1.0)
    flagged = held_out.probabilities >= threshold
    drawn = []
    for rows in held_out.rounds:
        occurred = rows[held_out.labels[rows]]
        own = flagged[occurred[inside[occurred]]]
        others = flagged[occurred[~inside[occurred]]]
        if own.size and others.any():
            drawn.append(own.mean() / others.mean())
    return take_compared_interval(drawn, compared) if drawn else (float("nan"), float("nan"))


def judge_benefit(held_out: HeldOut, manifest: ReleaseManifest) -> dict[str, float]:
    """Return the lower end of the least gain in net benefit at the edges that queue.

    The gain is over reviewing all and reviewing none, the better of both.
    """
    lows = []
    for edge in QUEUE_EDGES:
        threshold = manifest.score_map.probabilities[edge]

        def gain(
            labels: Labels, probabilities: Probabilities, threshold: float = threshold
        ) -> float:
            ours = measure_net_benefit(labels, probabilities, threshold)
            everyone = measure_net_benefit(labels, np.ones_like(probabilities), threshold)
            return ours - max(everyone, 0.0)

        lows.append(
            bootstrap_interval(gain, held_out.labels, held_out.probabilities, held_out.rounds)[0]
        )
    return {"net_benefit_gain_low": min(lows)}


def _bound_area(held_out: HeldOut, inside: Mask, compared: int) -> Interval:
    rounds = [rows[inside[rows]] for rows in held_out.rounds[:100]]
    areas = bootstrap_metric(auroc, held_out.labels, held_out.probabilities, rounds)
    return take_compared_interval(areas, compared)


def _bootstrap(
    held_out: HeldOut, chosen: Mask, ratio: Callable[[Labels, Probabilities], float]
) -> Interval:
    rounds = [rows[chosen[rows]] for rows in held_out.rounds]
    drawn = [ratio(held_out.labels[rows], held_out.probabilities[rows]) for rows in rounds]
    return take_interval(drawn)


def _describe(attribute: str, group: str, labels: Labels) -> dict[str, object]:
    rows, outcomes = len(labels), int(labels.sum())
    return {"attribute": attribute, "group": group, "rows": rows, "outcomes": outcomes}
