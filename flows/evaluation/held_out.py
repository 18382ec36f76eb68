"""The held-out individuals, scored: what every part of an evaluation looks at."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from feature_repo.consent_terms import DATA_TYPES
from feature_repo.individual import JOIN_KEY
from flows.evaluation.metrics import (
    Interval,
    OneSidedLabelsError,
    auprc,
    auroc,
    bootstrap_difference,
    bootstrap_interval,
    draw_bootstrap_rows,
    measure_net_benefit,
)
from flows.models.interval import compare_rates
from flows.models.member import FittedMember, Labels, ModelRows, Probabilities
from flows.models.missing import blank_data_types, find_missing
from flows.models.release import predict_all, predict_release
from flows.models.selection import YARDSTICK
from flows.training_set import TrainingSet
from mlruns_config.release import ReleaseManifest

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
    return HeldOut(
        frame=frame,
        rows=rows,
        labels=training_set.labels[chosen],
        probabilities=predict_release(members, manifest, rows),
        by_member=predict_all(members, rows),
        rounds=draw_bootstrap_rows(frame[JOIN_KEY].to_numpy().astype(np.str_), seed),
    )


def _require_both_outcomes(labels: Labels) -> None:
    outcomes = int(labels.sum())
    if outcomes in (0, len(labels)):
        raise OneSidedLabelsError(
            f"{outcomes} of the {len(labels)} held-out rows have the outcome: a release cannot "
            "be judged on them"
        )


def measure_members(found: HeldOut) -> dict[str, float]:
    """Return AUROC and AUPRC of every member alone."""
    return {
        f"{name}_{metric.__name__}": metric(found.labels, predicted)
        for name, predicted in found.by_member.items()
        for metric in (auroc, auprc)
    }


def measure_operating_points(found: HeldOut, manifest: ReleaseManifest) -> dict[str, float]:
    """Return sensitivity, PPV and share of rows at or above each band edge."""
    measured: dict[str, float] = {}
    edges = zip(manifest.score_map.scores, manifest.score_map.probabilities, strict=True)
    for score, probability in list(edges)[1:-1]:
        above = found.probabilities >= probability
        hits = float((above & found.labels).sum())
        measured |= {
            f"sensitivity_score_{score:.0f}": hits / float(found.labels.sum()),
            f"ppv_score_{score:.0f}": hits / max(float(above.sum()), 1.0),
            f"share_score_{score:.0f}": float(above.mean()),
        }
    return measured


def measure_without_data(
    found: HeldOut, members: Mapping[str, FittedMember], manifest: ReleaseManifest
) -> dict[str, float]:
    """Return the release's AUROC with each data type taken away."""
    without = {
        data_type: predict_release(members, manifest, blank_data_types(found.rows, (data_type,)))
        for data_type in DATA_TYPES
    }
    return {
        f"auroc_without_{name}": auroc(found.labels, predicted)
        for name, predicted in without.items()
    }


def find_half_widths(
    manifest: ReleaseManifest, probabilities: Probabilities, rows: ModelRows
) -> Probabilities:
    """Return the half-width of each row's interval, by the data types the row lacks."""
    widths = np.empty(len(rows))
    missing = find_missing(rows)
    for combination in np.unique(missing, axis=0):
        chosen = (missing == combination).all(axis=1)
        lacking = [
            kind for kind, is_missing in zip(DATA_TYPES, combination, strict=True) if is_missing
        ]
        widths[chosen] = manifest.conformal.measure_half_width(probabilities[chosen], lacking)
    return widths


def measure_coverage(found: HeldOut, manifest: ReleaseManifest, seed: int) -> dict[str, float]:
    """Return the share of held-out groups whose rate lies within the interval they are given."""
    widths = find_half_widths(manifest, found.probabilities, found.rows)
    rates = compare_rates(found.probabilities, widths, found.labels, seed)
    return {
        "interval_coverage": rates.measure_coverage(),
        "interval_width": float(2 * rates.half_widths.mean()),
    }


def compare_net_benefit(found: HeldOut, manifest: ReleaseManifest) -> dict[str, float]:
    """Return the net benefit at the review threshold and its gain over all-or-nobody."""
    threshold = manifest.score_map.probabilities[REVIEW_EDGE]
    ours = measure_net_benefit(found.labels, found.probabilities, threshold)
    everyone = measure_net_benefit(found.labels, np.ones_like(found.probabilities), threshold)
    return {"net_benefit": ours, "net_benefit_gain": ours - max(everyone, 0.0)}


def measure_intervals(found: HeldOut) -> dict[str, Interval]:
    """Return 95 % intervals by individual, and of the AUROC gain over the yardstick."""
    yardstick = found.by_member[YARDSTICK]
    return {
        "auroc": bootstrap_interval(auroc, found.labels, found.probabilities, found.rounds),
        "auprc": bootstrap_interval(auprc, found.labels, found.probabilities, found.rounds),
        "auroc_gain": bootstrap_difference(
            auroc, found.labels, found.probabilities, yardstick, found.rounds
        ),
    }
