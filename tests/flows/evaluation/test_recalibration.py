"""What a recalibration offers, and the maps it leaves."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.datasets.rows import ModelRows
from flows.evaluation.held_out import HeldOut
from flows.evaluation.recalibration import (
    Recalibration,
    choose_kind,
    fit_numbers,
    move,
    move_map,
    move_others,
    move_reference,
)
from flows.models.calibration import fit_isotonic, fit_platt
from flows.models.out_of_fold import FOLDS
from monitoring.drift_reference import make_reference

ROWS = 6000


def draw(intercept: float, slope: float, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Draw outcomes whose log-odds are intercept + slope * those of the predictions."""
    random = np.random.default_rng(seed)
    probabilities = random.beta(1.5, 5, ROWS)
    return random.random(ROWS) < move(probabilities, intercept, slope), probabilities


def make_offer(intercept: float, slope: float) -> Recalibration:
    return Recalibration(
        release=3,
        kind="intercept_and_slope",
        intercept=intercept,
        slope=slope,
        simulated=False,
        before={"observed_over_expected": 0.5, "brier": 0.12},
        metrics={"observed_over_expected": 1.0, "brier": 0.1},
    )


@pytest.mark.parametrize(
    ("ratio", "slope", "kind"),
    [
        ((0.9, 1.1), (0.8, 1.2), None),
        ((0.5, 0.7), (0.8, 1.2), "intercept"),
        ((0.9, 1.1), (0.4, 0.9), "intercept_and_slope"),
    ],
)
def test_only_what_surely_misses_is_moved(ratio, slope, kind):
    assert choose_kind(ratio, slope) == kind


def test_the_two_numbers_are_found_again():
    labels, probabilities = draw(-0.5, 1.4)
    found = fit_numbers("intercept_and_slope", labels, probabilities)
    assert found == pytest.approx((-0.5, 1.4), abs=0.15)


def test_an_intercept_alone_leaves_the_slope():
    labels, probabilities = draw(-0.7, 1.0)
    intercept, slope = fit_numbers("intercept", labels, probabilities)
    assert (intercept, slope) == (pytest.approx(-0.7, abs=0.1), 1.0)


def test_an_offer_never_turns_the_order_round():
    labels, probabilities = draw(0.0, -1.0)
    assert fit_numbers("intercept_and_slope", labels, probabilities)[1] > 0


def test_each_row_is_moved_by_numbers_of_other_individuals():
    labels, probabilities = draw(-0.6, 1.0)
    people = [f"person {n // 6}" for n in range(ROWS)]
    rows = ModelRows(np.zeros((ROWS, 1), np.float32), np.zeros((ROWS, 1, 1), np.float32))
    frame = pl.DataFrame({"anonymized_id": people})
    found = HeldOut(frame, rows, labels, probabilities, {}, [])
    moved = move_others("intercept", found)
    shifts = np.log(moved / (1 - moved)) - np.log(probabilities / (1 - probabilities))

    assert labels.sum() / moved.sum() == pytest.approx(1, abs=0.02)
    # One shift for each fold, none of which is that of all rows.
    assert len(np.unique(shifts.round(6))) == FOLDS
    assert fit_numbers("intercept", labels, probabilities)[0] not in shifts.round(6)


@pytest.mark.parametrize("fit", [fit_platt, fit_isotonic])
@settings(deadline=None)
@given(intercept=st.floats(-2, 2), slope=st.floats(0.2, 2))
def test_a_moved_map_is_the_map_followed_by_the_move(fit, intercept, slope):
    labels, stacked = draw(0.0, 1.0)
    before = fit(stacked, labels)
    after = move_map(before, make_offer(intercept, slope))
    asked = np.linspace(0.002, 0.998, 400)

    expected = move(np.clip(before.apply(asked), 1e-6, 1 - 1e-6), intercept, slope)
    np.testing.assert_allclose(after.apply(asked), expected, atol=0.015)
    assert (np.diff(after.apply(asked)) >= 0).all()


def test_the_drift_reference_holds_the_moved_probabilities():
    scores = np.random.default_rng(1).beta(1, 6, 3000)
    reference = make_reference({"steps": np.arange(3000.0)}, scores, {})
    moved = move_reference(reference, make_offer(-1.0, 1.0))

    assert np.mean(moved.score.quantiles) < 0.6 * np.mean(reference.score.quantiles)
    assert moved.columns == reference.columns
