"""Boosted trees: monotone in symptoms, repeatable, and the same as graph and as text."""

from dataclasses import replace

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.datasets.rows import ModelRows
from flows.models.lightgbm import PARAMETERS, BoostedTrees, fit, round_thresholds
from flows.models.member import check_parity
from flows.models.monotone import MONOTONE_COLUMNS
from tests.fixtures.drawn_rows import NAMES, draw_fitting_data, draw_rows


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Two threads on a busy machine wait for each other; the trees are the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PARAMETERS, "num_threads", 1)
        yield


@pytest.fixture(scope="module")
def data():
    return draw_fitting_data()


@pytest.fixture(scope="module")
def fitted(data) -> BoostedTrees:
    return fit(data)


def test_the_trees_learnt_something(fitted):
    assert fitted.parameters["trees"] > 5


def test_monotone_columns_are_inputs():
    assert set(MONOTONE_COLUMNS) <= set(NAMES)


def test_the_graph_says_the_same_of_two_thousand_rows_with_gaps(fitted):
    rows = draw_rows(2000, 9)
    rows.features[:5] = np.nan
    rows.features[5:10] = 1e30
    rows.features[10:15] = -1e30

    assert np.isnan(rows.features).any(axis=1).sum() > 1000
    assert check_parity(fitted, fitted.export_graph(), rows) < 1e-6


def test_the_graph_branches_as_the_trees_do_on_the_very_thresholds(fitted, data):
    # Values of training rows lie next to thresholds; so do their float32 neighbours.
    near = data.rows.features[:700]
    stacked = np.concatenate([np.nextafter(near, np.float32(s)) for s in (-np.inf, np.inf)])
    rows = ModelRows(np.concatenate([near, stacked]), np.zeros((2100, 26, 10), np.float32))

    assert check_parity(fitted, fitted.export_graph(), rows) < 1e-6


def test_a_value_missing_only_in_use_is_scored_alike(data):
    # No row of the training lacked a PHQ-9; a request may.
    column = NAMES.index("phq9_total")

    def fill(rows: ModelRows) -> ModelRows:
        features = rows.features.copy()
        features[:, column] = np.nan_to_num(features[:, column], nan=9.0)
        return replace(rows, features=features)

    complete = replace(data, rows=fill(data.rows), stopping_rows=fill(data.stopping_rows))
    fitted = fit(complete)
    asked = draw_rows(1000, 4)
    asked.features[:, column] = np.nan

    assert check_parity(fitted, fitted.export_graph(), asked) < 1e-6


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 499),
    st.sampled_from(MONOTONE_COLUMNS),
    st.lists(st.integers(0, 27), min_size=2, max_size=2, unique=True),
)
def test_more_symptoms_never_lower_the_estimate(fitted, row, column, values):
    pair = np.repeat(draw_rows(500, 21).features[row : row + 1], 2, axis=0)
    pair[:, NAMES.index(column)] = sorted(values)
    low, high = fitted.predict(ModelRows(pair, np.zeros((2, 26, 10), np.float32)))

    assert low <= high


def put_on_thresholds(booster: lightgbm.Booster, rows: np.ndarray) -> np.ndarray:
    """Return rows with one value each on the float32 next to a threshold, or beside it."""
    splits = booster.trees_to_dataframe().dropna(subset=["split_feature"])
    columns = splits["split_feature"].str.removeprefix("Column_").astype(int).to_numpy()
    nearest = splits["threshold"].to_numpy().astype(np.float32)
    sides = [nearest, *(np.nextafter(nearest, np.float32(to)) for to in (-np.inf, np.inf))]
    placed = np.resize(rows, (3 * len(nearest), rows.shape[1]))
    placed[np.arange(len(placed)), np.tile(columns, 3)] = np.concatenate(sides)
    return placed


def test_rounding_thresholds_changes_no_prediction(data):
    rows = data.rows.features
    parameters = {"objective": "binary", "verbosity": -1, "num_leaves": 31, "num_threads": 1}
    booster = lightgbm.train(parameters, lightgbm.Dataset(rows, data.labels), 30)
    rounded = lightgbm.Booster(model_str=round_thresholds(booster.model_to_string()))
    asked = np.concatenate([rows, put_on_thresholds(booster, rows)])

    assert np.array_equal(booster.predict(asked), rounded.predict(asked))


def test_thresholds_are_float32_numbers(fitted):
    lines = [
        line.removeprefix("threshold=")
        for line in fitted.export_files()["model.txt"].decode().splitlines()
        if line.startswith("threshold=")
    ]
    numbers = np.array(" ".join(lines).split(), np.float64)

    assert len(numbers) > 50
    assert np.array_equal(numbers, numbers.astype(np.float32).astype(np.float64))


def test_the_same_seed_gives_the_same_trees(fitted, data):
    assert fit(data).export_files() == fitted.export_files()


def test_another_seed_gives_other_trees(fitted, data):
    assert fit(replace(data, seed=99)).export_files() != fitted.export_files()


def test_the_text_gives_contributions_that_add_up(fitted):
    booster = lightgbm.Booster(model_str=fitted.export_files()["model.txt"].decode())
    rows = draw_rows(1000, 5)
    log_odds = booster.predict(rows.features, pred_contrib=True).sum(axis=1)

    assert 1 / (1 + np.exp(-log_odds)) == pytest.approx(fitted.predict(rows))
