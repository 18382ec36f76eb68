"""How good a release is at `worsening`, on held-out people who are not severely ill yet."""

import numpy as np
import polars as pl

from feature_repo.stored_views import JOIN_KEY
from flows.datasets.labels import WORSENED
from flows.datasets.rows import Labels, Probabilities, number_individuals
from flows.datasets.training_set import TrainingSet
from flows.evaluation.metrics import (
    auprc,
    auroc,
    bootstrap_difference,
    draw_bootstrap_rows,
    measure_ece,
    measure_sensitivity,
)
from flows.evaluation.releasing import LIKELY_SHARE, LearntRelease, find_severe
from flows.models.interval import predict_head
from mlruns_config.heads import WorseningHead

SEED = 7


def measure_worsening(training_set: TrainingSet, learnt: LearntRelease) -> dict[str, float]:
    """Return the second outcome's metrics, beginning with `worsening_`.

    Empty where the release does not estimate it, or the held-out rows hold one class only.
    `worsening_share_likely` is the share called likely, `worsening_sensitivity_likely` what
    they hold of all who worsened.
    """
    head = learnt.manifest.worsening
    if head is None or learnt.worsening is None:
        return {}
    beside = training_set.turn_to(WORSENED, ~find_severe(training_set))
    chosen = beside.split.held_out
    people = beside.frame[JOIN_KEY].filter(pl.Series(chosen))
    return describe_worsening(
        beside.labels[chosen],
        predict_head(learnt.worsening.members, head, beside.rows.select(chosen)),
        beside.read_phq9_totals()[chosen],
        people,
        head,
    )


def describe_worsening(
    labels: Labels,
    probabilities: Probabilities,
    totals: Probabilities,
    people: pl.Series,
    head: WorseningHead,
) -> dict[str, float]:
    """Return the second outcome's metrics on rows of people who are not severely ill yet.

    `totals` are their PHQ-9 totals. Empty where the rows hold one class only.
    """
    if labels.all() or not labels.any():
        return {}
    mean = float(np.nanmean(totals)) if np.isfinite(totals).any() else 0.0
    alone = np.nan_to_num(totals, nan=mean)
    rounds = draw_bootstrap_rows(number_individuals(people), SEED)
    low, high = bootstrap_difference(auroc, labels, probabilities, alone, rounds)
    likely = probabilities >= head.likely_above
    expected = float(probabilities.sum())
    return {
        "worsening_auroc": auroc(labels, probabilities),
        "worsening_auroc_phq9_alone": auroc(labels, alone),
        "worsening_auroc_gain_over_phq9_low": low,
        "worsening_auroc_gain_over_phq9_high": high,
        "worsening_auprc": auprc(labels, probabilities),
        "worsening_ece": measure_ece(labels, probabilities),
        "worsening_observed_over_expected": float(labels.sum()) / expected,
        "worsening_prevalence": float(labels.mean()),
        "worsening_share_likely": float(likely.mean()),
        "worsening_sensitivity_likely": float(likely[labels].mean()),
        f"worsening_sensitivity_top_{LIKELY_SHARE * 100:.0f}": measure_sensitivity(
            labels, probabilities, LIKELY_SHARE
        ),
    }
