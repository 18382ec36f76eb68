"""The bounded ridge regression: the minimum it finds, and where it begins and ends."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from flows.models.folded_regression import RIDGE_C
from flows.models.ridge import RidgeLoss, fit_ridge

ROWS, WIDTH = 400, 6


def draw_problem(seed: int, rows: int = ROWS) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    columns = random.normal(size=(rows, WIDTH)) * random.uniform(0.1, 5, WIDTH)
    weights = random.normal(size=WIDTH)
    return columns, random.random(rows) < 1 / (1 + np.exp(-columns @ weights))


@settings(deadline=None)
@given(seed=st.integers(0, 2**16), rising=st.lists(st.booleans(), min_size=WIDTH, max_size=WIDTH))
def test_no_bounded_coefficient_is_below_zero_and_none_could_be_better(seed, rising):
    columns, labels = draw_problem(seed)
    often = np.random.default_rng(seed).poisson(1, ROWS).astype(float)
    bounded = np.array(rising)
    weights, intercept = fit_ridge(columns, labels, bounded, often)
    loss = RidgeLoss(columns, labels, often)
    slopes, _ = loss.find_slopes(np.append(weights, intercept))

    at_bound = np.append(bounded & (weights == 0), False)
    assert (weights[bounded] >= 0).all()
    assert slopes[~at_bound] == pytest.approx(0, abs=1e-3)
    assert (slopes[at_bound] >= -1e-3).all()


def test_without_bounds_the_fit_is_scikit_learns():
    columns, labels = draw_problem(1)
    model = LogisticRegression(C=RIDGE_C, tol=1e-10, solver="newton-cholesky").fit(columns, labels)
    weights, intercept = fit_ridge(columns, labels, np.zeros(WIDTH, bool))

    assert weights == pytest.approx(model.coef_[0], abs=1e-6)
    assert intercept == pytest.approx(model.intercept_[0], abs=1e-6)


def test_a_row_that_counts_twice_is_two_rows():
    columns, labels = draw_problem(2)
    often = np.random.default_rng(2).poisson(1, ROWS)
    counted, _ = fit_ridge(columns, labels, np.ones(WIDTH, bool), often.astype(float))
    repeated = np.repeat(columns, often, axis=0), np.repeat(labels, often)
    listed, _ = fit_ridge(*repeated, np.ones(WIDTH, bool))

    assert counted == pytest.approx(listed, abs=1e-9)


def test_the_minimum_is_found_from_anywhere():
    # More rows than are summed at once.
    columns, labels = draw_problem(3, 10_000)
    rising = np.arange(WIDTH) % 2 == 0
    first, _ = fit_ridge(columns, labels, rising)
    for start in (np.full(WIDTH + 1, 3.0), np.full(WIDTH + 1, -3.0)):
        found, _ = fit_ridge(columns, labels, rising, start=start)
        assert found == pytest.approx(first, abs=1e-6)


def test_columns_that_tell_everyone_apart_have_a_minimum_too():
    labels = np.arange(ROWS) % 2 == 0
    columns = np.where(labels, 1.0, -1.0)[:, None] * np.ones((1, WIDTH))
    weights, intercept = fit_ridge(columns, labels, np.ones(WIDTH, bool))

    assert weights == pytest.approx(np.full(WIDTH, weights[0]))
    assert 0 < weights[0] < 1
    assert intercept == pytest.approx(0, abs=1e-6)
