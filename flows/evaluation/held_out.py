"""The held-out individuals, scored: what every part of an evaluation looks at."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import polars as pl
from numpy.typing import NDArray

from feature_repo.consent_terms import DATA_TYPES
from feature_repo.stored_views import JOIN_KEY
from flows.datasets.rows import Labels, ModelRows, Probabilities, number_individuals
from flows.datasets.training_set import TrainingSet
from flows.evaluation.metrics import (
    TOP_SHARES,
    Interval,
    Metric,
    OneSidedLabelsError,
    auprc,
    auroc,
    bootstrap_difference,
    bootstrap_interval,
    brier,
    draw_bootstrap_rows,
    measure_net_benefit,
    measure_precision,
    measure_sensitivity,
    measure_slope,
)
from flows.models.assembly import predict_all, predict_release
from flows.models.data_types import blank_data_types
from flows.models.families import BASELINE
from flows.models.member import FittedMember
from mlruns_config.manifest import ReleaseManifest

#: Index of the score map's edge 75, the default review threshold.
REVIEW_EDGE = 3


@dataclass(frozen=True)
class HeldOut:
    """Rows of individuals and months that nothing of a release has seen, with its answers."""

    frame: pl.DataFrame
    rows: ModelRows
    labels: Labels
    probabilities: Probabilities
    by_member: dict[str, Probabilities]
    rounds: list[NDArray[np.int64]]


def score_held_out(
    training_set: TrainingSet,
    members: Mapping[str, FittedMember],
    manifest: ReleaseManifest,
    seed: int,
) -> HeldOut:
    """Score the held-out rows; raises OneSidedLabelsError where they hold one outcome only."""
    chosen = training_set.split.held_out
    _require_both_outcomes(training_set.labels[chosen])
    rows = training_set.rows.select(chosen)
    frame = training_set.frame.filter(pl.Series(chosen))
    probabilities = predict_release(members, manifest, rows)
    return HeldOut(
        frame=frame,
        rows=rows,
        labels=training_set.labels[chosen],
        probabilities=probabilities,
        by_member=predict_all(members, rows),
        rounds=draw_bootstrap_rows(number_individuals(frame[JOIN_KEY]), seed),
    )


def _require_both_outcomes(labels: Labels) -> None:
    outcomes = int(labels.sum())
    if outcomes in (0, len(labels)):
        raise OneSidedLabelsError(
            f"{outcomes} of the {len(labels)} held-out rows have the outcome: a release cannot "
            "be judged on them"
        )


def measure_operating_points(held_out: HeldOut, manifest: ReleaseManifest) -> dict[str, float]:
    """Return sensitivity, PPV and share of rows at or above each band edge."""
    measured: dict[str, float] = {}
    edges = zip(manifest.score_map.scores, manifest.score_map.probabilities, strict=True)
    for score, probability in list(edges)[1:-1]:
        above = held_out.probabilities >= probability
        hits = float((above & held_out.labels).sum())
        measured |= {
            f"sensitivity_score_{score:.0f}": hits / float(held_out.labels.sum()),
            f"ppv_score_{score:.0f}": hits / max(float(above.sum()), 1.0),
            f"share_score_{score:.0f}": float(above.mean()),
        }
    return measured


def measure_without_data(
    held_out: HeldOut, members: Mapping[str, FittedMember], manifest: ReleaseManifest
) -> dict[str, float]:
    """Return the release's AUROC with each data type taken away."""
    without = {
        data_type: predict_release(members, manifest, blank_data_types(held_out.rows, (data_type,)))
        for data_type in DATA_TYPES
    }
    return {
        f"auroc_without_{name}": auroc(held_out.labels, predicted)
        for name, predicted in without.items()
    }


def compare_net_benefit(held_out: HeldOut, manifest: ReleaseManifest) -> dict[str, float]:
    """Return the net benefit at the review threshold and its gain over reviewing all or none."""
    threshold = manifest.score_map.probabilities[REVIEW_EDGE]
    ours = measure_net_benefit(held_out.labels, held_out.probabilities, threshold)
    everyone = measure_net_benefit(held_out.labels, np.ones_like(held_out.probabilities), threshold)
    return {"net_benefit": ours, "net_benefit_gain": ours - max(everyone, 0.0)}


def measure_intervals(held_out: HeldOut) -> dict[str, Interval]:
    """Return 95 % intervals by individual, and those of the gains over the baseline.

    Without predictions of the baseline there are no gains.
    """
    labels, ours, rounds = held_out.labels, held_out.probabilities, held_out.rounds
    alone: dict[str, Metric] = {
        "auroc": auroc,
        "auprc": auprc,
        "brier": brier,
        "calibration_slope": measure_slope,
    }
    for share in TOP_SHARES:
        percent = f"{share * 100:.0f}"
        alone[f"sensitivity_top_{percent}"] = partial(measure_sensitivity, share=share)
        alone[f"ppv_top_{percent}"] = partial(measure_precision, share=share)
    intervals = {
        name: bootstrap_interval(metric, labels, ours, rounds) for name, metric in alone.items()
    }
    baseline = held_out.by_member.get(BASELINE)
    if baseline is None:
        return intervals
    gains = {"auroc_gain": auroc, "auprc_gain": auprc, "brier_gain": brier}
    return intervals | {
        name: bootstrap_difference(metric, labels, ours, baseline, rounds)
        for name, metric in gains.items()
    }


def compare_with_baseline(held_out: HeldOut) -> dict[str, float]:
    """Return what the release gains over logistic regression alone; of Brier less is better."""
    baseline = held_out.by_member[BASELINE]
    return {
        f"{metric.__name__}_gain": metric(held_out.labels, held_out.probabilities)
        - metric(held_out.labels, baseline)
        for metric in (auroc, auprc, brier)
    }
