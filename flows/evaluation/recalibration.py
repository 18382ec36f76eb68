"""What a recalibration on other data would change: an offer, which changes nothing.

Logit(p') = intercept + slope * logit(p). The slope is left alone where its interval holds 1, and
nothing is offered where that of observed over expected holds 1 too (the steps of Vergouwe 2017,
doi 10.1002/sim.7179, with intervals by individual). The offer is assessed on individuals that its
two numbers were not fitted on.
"""

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict
from scipy.special import expit, logit
from sklearn.model_selection import GroupKFold

from feature_repo.stored_views import JOIN_KEY
from flows.datasets.rows import Labels, Probabilities, number_individuals
from flows.evaluation.held_out import HeldOut
from flows.evaluation.measures import measure_scored, name_interval_metrics
from flows.evaluation.metrics import Interval, brier
from flows.models.calibration import maximise_likelihood
from flows.models.out_of_fold import FOLDS
from flows.models.stacking import to_log_odds
from mlruns_config.heads import Calibration, Head
from mlruns_config.manifest import ReleaseManifest
from monitoring.drift_reference import DriftReference
from serving.scoring.estimate import PROBABILITY_MARGIN

OFFER_FILE = "recalibration/offer.json"
Kind = Literal["intercept", "intercept_and_slope"]
SPREAD_KNOTS = 401


class Recalibration(BaseModel):
    """Two numbers that would move a release's probabilities to rows it was not trained on.

    `metrics` are those of the recalibrated release on these rows, each scored by numbers
    fitted on other individuals; `before` are the release's own Brier score and O/E there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    release: int
    kind: Kind
    intercept: float
    slope: float
    simulated: bool
    before: dict[str, float]
    metrics: dict[str, float]

    def describe(self) -> str:
        """Return one sentence on what it would change."""
        return (
            f"logit(p') = {self.intercept:+.3f} {self.slope:+.3f} logit(p) would move observed "
            f"over expected from {self.before['observed_over_expected']:.2f} to "
            f"{self.metrics['observed_over_expected']:.2f} and the Brier score from "
            f"{self.before['brier']:.4f} to {self.metrics['brier']:.4f}"
        )


def choose_kind(ratio: Interval, slope: Interval) -> Kind | None:
    """Return what must move, None where both intervals hold 1."""
    if not slope[0] <= 1 <= slope[1]:
        return "intercept_and_slope"
    return None if ratio[0] <= 1 <= ratio[1] else "intercept"


def fit_numbers(kind: Kind, labels: Labels, probabilities: Probabilities) -> tuple[float, float]:
    """Return (intercept, slope) by maximum likelihood; the slope is 1 where only the first moves.

    A slope is never below zero: the order of people stays.
    """
    slope = (1.0, 1.0) if kind == "intercept" else (0.01, None)
    numbers = maximise_likelihood(to_log_odds(probabilities)[:, None], labels, [slope])
    return float(numbers[0]), float(numbers[1])


def move(probabilities: Probabilities, intercept: float, slope: float) -> Probabilities:
    return np.asarray(expit(intercept + slope * to_log_odds(probabilities)))


def move_others(kind: Kind, scored: HeldOut) -> Probabilities:
    """Return each row's recalibrated probability, by numbers fitted on other individuals."""
    moved = np.empty(len(scored.labels))
    people = number_individuals(scored.frame[JOIN_KEY])
    for learnt, asked in GroupKFold(FOLDS).split(people, groups=people):
        numbers = fit_numbers(kind, scored.labels[learnt], scored.probabilities[learnt])
        moved[asked] = move(scored.probabilities[asked], *numbers)
    return moved


def offer_recalibration(
    scored: HeldOut,
    people: pl.DataFrame,
    manifest: ReleaseManifest,
    intervals: dict[str, Interval],
    release: int,
    simulated: bool,
) -> Recalibration | None:
    """Return what a recalibration would change; None where none is called for, or none helps."""
    kind = choose_kind(intervals["observed_over_expected"], intervals["calibration_slope"])
    if kind is None:
        return None
    moved = replace(scored, probabilities=move_others(kind, scored))
    measures = measure_scored(moved, people, manifest)
    metrics = measures.metrics | name_interval_metrics(measures.intervals)
    before = brier(scored.labels, scored.probabilities)
    if metrics["brier"] >= before:
        return None
    intercept, slope = fit_numbers(kind, scored.labels, scored.probabilities)
    return Recalibration(
        release=release,
        kind=kind,
        intercept=intercept,
        slope=slope,
        simulated=simulated,
        before={
            "brier": before,
            "observed_over_expected": float(scored.labels.sum() / scored.probabilities.sum()),
        },
        metrics=metrics,
    )


def recalibrate_manifest(manifest: ReleaseManifest, offer: Recalibration) -> ReleaseManifest:
    """Return a manifest whose probabilities of the priority's outcome are moved by an offer."""
    return manifest.model_copy(update=_move_maps(manifest.priority, offer))


def _move_maps(head: Head, offer: Recalibration) -> dict[str, Any]:
    return {
        "calibration": move_map(head.calibration, offer),
        "calibrations": {
            name: move_map(calibration, offer) for name, calibration in head.calibrations.items()
        },
    }


def move_map(calibration: Calibration, offer: Recalibration) -> Calibration:
    """Return a map followed by an offer, with knots so close that lines between them do."""
    spread = expit(np.linspace(logit(0.001), logit(0.999), SPREAD_KNOTS))
    inputs = np.unique(np.concatenate([calibration.inputs, spread]))
    outputs = calibration.apply(inputs)
    inside = np.clip(outputs, PROBABILITY_MARGIN, 1 - PROBABILITY_MARGIN)
    moved = np.maximum.accumulate(move(inside, offer.intercept, offer.slope))
    return Calibration(kind=calibration.kind, inputs=inputs.tolist(), outputs=moved.tolist())


def move_reference(reference: DriftReference, offer: Recalibration) -> DriftReference:
    """Return the drift reference with the distribution of the moved probabilities."""
    score = reference.score
    given = {"values": score.values, "quantiles": score.quantiles}
    moved = {
        name: move(np.asarray(probabilities), offer.intercept, offer.slope).tolist()
        for name, probabilities in given.items()
        if probabilities
    }
    return reference.model_copy(update={"score": score.model_copy(update=moved)})
