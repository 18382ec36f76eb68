"""When Production recalibrated suffices as a challenger, and why not otherwise."""

from dataclasses import replace
from datetime import date

import pytest

from flows.evaluation.recalibration import Recalibration
from flows.evaluation.sufficiency import OnNewest, choose_challenger
from mlruns_config.gates import Gate

GATES = (Gate(metric="ece", maximum=0.035, reason="A test.", decided=date(2026, 11, 29)),)
OFFER = Recalibration(
    release=4,
    kind="intercept",
    intercept=-0.6,
    slope=1.0,
    simulated=False,
    before={"observed_over_expected": 0.6, "brier": 0.12},
    metrics={"observed_over_expected": 1.0, "brier": 0.1},
)
MENDABLE = OnNewest(
    auroc_then=0.79,
    metrics={"auroc": 0.78},
    intervals={
        "auroc": (0.75, 0.81),
        "observed_over_expected": (0.55, 0.66),
        "calibration_slope": (0.9, 1.1),
    },
    offer=OFFER,
    gate_metrics={"ece": 0.02},
)


def change(**intervals: tuple[float, float]) -> OnNewest:
    return replace(MENDABLE, intervals=MENDABLE.intervals | intervals)


@pytest.mark.parametrize(
    ("newest", "why"),
    [
        (replace(MENDABLE, auroc_then=None), "AUROC of Production's evaluation is not known"),
        (change(auroc=(0.70, 0.785)), "ranks its newest outcomes worse (AUROC 0.780, 0.700 to"),
        (
            change(observed_over_expected=(0.9, 1.1)),
            "holds on its newest outcomes (observed over expected 0.90 to 1.10, slope 0.90 to",
        ),
        (replace(MENDABLE, offer=None), "would not lower its Brier score"),
        (replace(MENDABLE, gate_metrics={"ece": 0.05}), "fail on its newest outcomes: ece is 0.05"),
        (replace(MENDABLE, gate_metrics=None), "ece is missing"),
    ],
)
def test_a_new_release_is_trained_where_a_recalibration_does_not_suffice(newest, why):
    choice = choose_challenger(newest, GATES)
    assert not choice.recalibrates
    assert why in choice.why
    assert choice.describe().startswith("newly trained: ")


@pytest.mark.parametrize("auroc", [(0.75, 0.79), (0.80, 0.86)])
def test_a_recalibration_suffices_where_only_the_calibration_is_lost(auroc):
    choice = choose_challenger(change(auroc=auroc), GATES)
    assert choice.recalibrates
    assert "observed over expected from 0.60 to 1.00" in choice.why
    assert choice.describe().startswith("recalibrated: Production ranks its newest outcomes as at")
