"""Calibration as a curve: near the prediction where it is calibrated, away where it is not."""

import numpy as np
import pytest

from flows.evaluation.metrics import draw_bootstrap_rows
from flows.evaluation.smooth_calibration import draw_smooth_curve, measure_distance

ROWS = 4000
PEOPLE = np.array([f"person {n // 4}" for n in range(ROWS)])


@pytest.fixture(scope="module")
def predicted() -> np.ndarray:
    return np.random.default_rng(1).beta(1.5, 5, ROWS)


def draw(chance: np.ndarray) -> np.ndarray:
    return np.random.default_rng(2).random(ROWS) < chance


def test_a_calibrated_prediction_lies_within_the_interval_of_its_curve(predicted):
    curve = draw_smooth_curve(draw(predicted), predicted, draw_bootstrap_rows(PEOPLE, 1, 60))
    inside = (curve["low"] <= curve["predicted"]) & (curve["predicted"] <= curve["high"])

    assert inside.mean() > 0.7
    assert measure_distance(draw(predicted), predicted)["calibration_ici"] < 0.02


def test_a_prediction_that_overstates_is_measured_by_how_much(predicted):
    distance = measure_distance(draw(predicted / 2), predicted)
    assert distance["calibration_ici"] == pytest.approx(predicted.mean() / 2, abs=0.02)
    assert distance["calibration_e90"] > distance["calibration_ici"]


def test_a_prediction_that_never_differs_still_has_a_curve():
    labels = np.array([True, False, False, False] * 50)
    distance = measure_distance(labels, np.full(200, 0.25))
    assert distance["calibration_ici"] == pytest.approx(0, abs=0.01)
