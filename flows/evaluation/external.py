"""A registered release on labelled data that it has not learnt from, and that are not kept."""

import numpy as np
import polars as pl

from feature_repo.individual import JOIN_KEY
from flows.datasets.external import ExternalSet
from flows.datasets.labels import LABEL, WORSENED
from flows.datasets.training_set import find_input
from flows.evaluation import plots
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
from flows.evaluation.metrics import compute_metrics, draw_bootstrap_rows
from flows.evaluation.report import Evaluation, tabulate_curves
from flows.evaluation.severity import compare_expected, compare_with_phq9_alone, find_worst_ratio
from flows.evaluation.smooth_calibration import measure_distance
from flows.evaluation.worsening import describe_worsening
from flows.models.families import BASELINE
from flows.models.interval import predict_head
from flows.models.registered import RegisteredRelease
from mlruns_config.manifest import ReleaseManifest

#: Fewer outcomes, or rows without, make a validation imprecise (Collins 2016, doi
#: 10.1002/sim.6787): it is done, and says so.
PRECISE_FROM = 100


def score_external(external: ExternalSet, release: RegisteredRelease, seed: int) -> HeldOut:
    """Score every external row with a release as it answers."""
    individuals = external.frame[JOIN_KEY].to_numpy().astype(np.str_)
    baseline = release.members.get(BASELINE)
    return HeldOut(
        frame=external.frame,
        rows=external.rows,
        labels=external.frame[LABEL].to_numpy(),
        probabilities=release.predict(external.rows),
        by_member={} if baseline is None else {BASELINE: baseline.predict(external.rows)},
        rounds=draw_bootstrap_rows(individuals, seed),
    )


def evaluate_external(
    scored: HeldOut, external: ExternalSet, release: RegisteredRelease
) -> Evaluation:
    """Return discrimination, calibration, usefulness and groups, with intervals by individual."""
    metrics, intervals, tables = measure_external(scored, external.people, release.manifest)
    tables["calibration"] = compare_expected(scored, release.members, release.manifest)
    metrics |= find_worst_ratio(tables["calibration"]) | measure_second_outcome(external, release)
    tables |= tabulate_curves(scored)
    figures = plots.draw_all(
        scored.labels, scored.probabilities, scored.by_member, release.manifest
    )
    return Evaluation(metrics, intervals, tables, figures | plots.draw_tables(tables, metrics))


def measure_external(
    scored: HeldOut, people: pl.DataFrame, manifest: ReleaseManifest
) -> tuple[dict[str, float], dict[str, tuple[float, float]], dict[str, pl.DataFrame]]:
    """Return metrics under the names that the gates use, intervals, and tables of groups."""
    described = describe_groups(scored, people)
    threshold = manifest.score_map.probabilities[REVIEW_EDGE]
    groups = compare_groups(described, scored, threshold)
    judged = measure_judged(scored, described, manifest)
    alone, alone_intervals = compare_with_phq9_alone(scored)
    intervals = measure_intervals(scored) | alone_intervals
    intervals["observed_over_expected"] = bound_ratio(scored, np.ones(len(scored.labels), bool))
    metrics = compute_metrics(scored.labels, scored.probabilities)
    metrics |= {
        "observed_over_expected": float(scored.labels.sum() / scored.probabilities.sum()),
        "rows": float(len(scored.labels)),
        "outcomes": float(scored.labels.sum()),
        "individuals": float(scored.frame[JOIN_KEY].n_unique()),
    }
    metrics |= measure_operating_points(scored, manifest) | compare_net_benefit(scored, manifest)
    metrics |= find_worst(groups) | judged.metrics | alone
    metrics |= measure_distance(scored.labels, scored.probabilities)
    if BASELINE in scored.by_member:
        metrics |= compare_with_baseline(scored)
    metrics |= name_bounds(intervals)
    return metrics, intervals, {"fairness": groups, "not_judged": judged.not_judged}


def name_bounds(intervals: dict[str, tuple[float, float]]) -> dict[str, float]:
    """Return the ends of intervals that gates ask for, by the gates' names."""
    asked = ("auroc", "auroc_gain", "auroc_gain_over_phq9")
    named = {f"{name}_low": intervals[name][0] for name in asked if name in intervals}
    low, high = intervals["calibration_slope"]
    return named | {"calibration_slope_low": low, "calibration_slope_high": high}


def measure_second_outcome(external: ExternalSet, release: RegisteredRelease) -> dict[str, float]:
    """Return the metrics of `worsening` among those not severely ill; empty without it."""
    head = release.manifest.worsening
    if head is None:
        return {}
    totals = external.rows.features[:, find_input("phq9_total")].astype(np.float64)
    is_labelled = external.frame[WORSENED].is_not_null().to_numpy()
    chosen = is_labelled & ~(totals >= head.severe_from)
    if not chosen.any():
        return {}
    return describe_worsening(
        external.frame[WORSENED].fill_null(False).to_numpy()[chosen],
        predict_head(release.members, head, external.rows.select(chosen)),
        totals[chosen],
        external.frame[JOIN_KEY].filter(pl.Series(chosen)),
        head,
    )
