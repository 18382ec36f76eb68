"""Drift: what is found, what is not, and what never reaches Evidently."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitoring.drift import SAMPLE_ROWS, can_be_tested, measure_drift
from monitoring.drift_null import make_null
from monitoring.drift_reference import (
    MIN_ROWS,
    QUANTILES,
    SCORE,
    DriftReference,
    draw,
    make_reference,
    summarise,
)

pytestmark = pytest.mark.usefixtures("evidently")


def draw_rows(rows: int, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    sparse = random.normal(size=rows)
    sparse[random.random(rows) < 0.6] = np.nan
    return {
        "steps": random.normal(8000, 2500, rows),
        "phq9_item_1": random.integers(0, 4, rows).astype(float),
        "sparse": sparse,
        "never": np.full(rows, np.nan),
    }


@pytest.fixture(scope="module")
def reference() -> DriftReference:
    weights = {"steps": 6.0, "phq9_item_1": 3.0, "sparse": 1.0}
    rows, scores = draw_rows(6000, 1), np.random.default_rng(2).beta(1, 6, 6000)
    made = make_reference(rows, scores, weights)
    null = make_null(rows | {SCORE: scores}, made.columns | {SCORE: made.score}, None, 1, 100)
    modalities = {"steps": "wearables", "sparse": "wearables", "phq9_item_1": "questionnaires"}
    return made.model_copy(update={"null": null, "people": 6000, "modalities": modalities})


def measure(reference: DriftReference, rows: int = 2000, seed: int = 5, **changes):
    features = pd.DataFrame(draw_rows(rows, seed) | changes)
    scores = pd.Series(np.random.default_rng(seed).beta(1, 6, rows))
    return measure_drift(reference, features, scores, rows)


def names_of_drifted(result) -> list[str]:
    return [one.column for one in result.columns if one.drifted]


def test_nothing_screened_is_no_drift_and_no_error(reference):
    result = measure_drift(reference, pd.DataFrame(), pd.Series(dtype=float), 0)

    assert (result.drift_score, result.score, result.snapshot) == (0, None, None)


@pytest.mark.parametrize("rows", [150, 999, 2000, 20_000])
def test_the_same_population_has_not_drifted(reference, rows):
    result = measure(reference, rows)

    assert names_of_drifted(result) == []
    assert result.rows_current == min(rows, SAMPLE_ROWS)
    assert not result.score.drifted


def test_a_column_of_little_weight_raises_the_alarm_of_its_modality(reference):
    sparse = 1.3 * draw_rows(2000, 5)["sparse"] + 0.4
    result = measure(reference, sparse=sparse)

    assert result.alarms == ["wearables"]
    assert result.drift_score == pytest.approx(0.1)


def test_a_release_whose_reference_has_no_null_is_compared_by_fixed_bounds(reference):
    older = reference.model_copy(update={"null": None, "modalities": {}})
    shifted = np.random.default_rng(1).normal(5000, 2500, 2000)

    assert measure(older).alarms == []
    assert measure(older, steps=shifted).alarms == ["features"]


@pytest.mark.parametrize("rows", [300, 3000])
def test_a_shifted_column_drifts_and_weighs_its_importance(reference, rows):
    result = measure(reference, rows, steps=np.random.default_rng(1).normal(5000, 2500, rows))

    assert names_of_drifted(result) == ["steps"]
    assert result.alarms == ["wearables"]
    assert result.drift_score == pytest.approx(0.6)
    assert result.drifted_share == 0.25
    assert result.columns[0].column == "steps"  # the most important first


def test_answers_that_became_others_drift(reference):
    result = measure(reference, phq9_item_1=np.repeat([0.0, 3.0], 1000))
    assert names_of_drifted(result) == ["phq9_item_1"]


def test_values_that_are_missing_otherwise_drift_though_the_known_ones_do_not(reference):
    fewer = draw_rows(2000, 5)["steps"]
    fewer[:600] = np.nan
    result = measure(reference, steps=fewer)

    (steps,) = [one for one in result.columns if one.drifted]
    assert (steps.column, steps.values_drifted, steps.missing_drifted) == ("steps", False, True)
    assert result.missing_share == 0.25


def draw_slopes(rows: int, seed: int) -> dict[str, np.ndarray]:
    """Draw trends over a few days, some of them over two: their tails are heavy."""
    random = np.random.default_rng(seed)
    return {f"slope_{n}": random.standard_t(1.5, rows) for n in range(8)}


def make_bounded_reference(rows: dict[str, np.ndarray]) -> DriftReference:
    """Return a reference of rows of 3,000 people, with its bounds and without scores."""
    made = make_reference(rows, np.empty(0), {})
    null = make_null(rows, made.columns, None, 1, 100)
    return made.model_copy(update={"null": null, "people": 3000})


def test_a_heavy_tail_is_no_drift():
    tails = make_bounded_reference(draw_slopes(3000, 1))
    windows = [pd.DataFrame(draw_slopes(400, seed)) for seed in range(2, 14)]
    found = [measure_drift(tails, window, pd.Series(dtype=float), 400).alarms for window in windows]
    assert sum(map(bool, found)) <= 1

    moved = measure_drift(tails, windows[0] * 1000, pd.Series(dtype=float), 400)
    assert len(names_of_drifted(moved)) == 8


def test_a_value_that_was_always_the_same_drifts_once_enough_of_them_differ():
    constant = make_bounded_reference({"inpatient_stays": np.zeros(3000)})
    for others, drifted in ((1, []), (60, ["inpatient_stays"])):
        window = pd.DataFrame({"inpatient_stays": [7.0] * others + [0.0] * (400 - others)})
        result = measure_drift(constant, window, pd.Series(dtype=float), 400)
        assert names_of_drifted(result) == drifted


def test_columns_of_nothing_or_of_infinities_never_reach_evidently(reference):
    infinite = draw_rows(2000, 5)["steps"]
    infinite[:3] = np.inf
    nothing = np.full(2000, np.nan)
    result = measure(reference, steps=infinite, phq9_item_1=nothing, sparse=nothing)
    by_name = {one.column: one for one in result.columns}

    assert by_name["steps"].infinite == 3
    assert by_name["phq9_item_1"].method is by_name["sparse"].method is None
    assert names_of_drifted(result) == ["steps", "phq9_item_1", "sparse"]
    assert not by_name["never"].drifted  # it never was known


def test_a_column_known_of_almost_nobody_is_not_tested_and_no_error():
    rare = np.full(200_000, np.nan)
    rare[:12] = 1.0
    made = make_reference({"rare": rare}, np.empty(0), {})
    result = measure_drift(made, pd.DataFrame({"rare": np.ones(500)}), pd.Series(dtype=float), 500)

    (column,) = result.columns
    assert column.method is None
    assert column.missing_drifted


def test_a_column_that_is_no_longer_sent_counts_as_missing(reference):
    features = pd.DataFrame(draw_rows(2000, 5)).drop(columns="steps")
    result = measure_drift(reference, features, pd.Series(dtype=float), 2000)
    assert names_of_drifted(result) == ["steps"]


def test_scores_that_moved_are_told_beside_the_features(reference):
    features = pd.DataFrame(draw_rows(2000, 5))
    result = measure_drift(
        reference, features, pd.Series(np.random.default_rng(1).beta(3, 3, 2000)), 2000
    )

    assert result.score.drifted
    assert result.alarms == [SCORE]
    assert result.drift_score == 0


def test_evidentlys_page_and_values_begin_with_the_farthest_column(reference, tmp_path):
    sparse = 1.3 * draw_rows(2000, 5)["sparse"] + 0.4
    result = measure(reference, sparse=sparse)
    result.snapshot.save_html(str(tmp_path / "drift.html"))
    result.snapshot.save_json(str(tmp_path / "drift.json"))

    page = (tmp_path / "drift.html").read_text()
    assert 0 < page.index("Drift in column 'sparse'") < page.index("Drift in column 'steps'")
    metrics = json.loads((tmp_path / "drift.json").read_text())["metrics"]
    assert {metric["config"]["column"] for metric in metrics} == {
        "sparse",
        "steps",
        "phq9_item_1",
        SCORE,
    }
    assert metrics[0]["config"]["column"] == "sparse"


def test_a_summary_holds_no_extreme_and_no_rare_value():
    values = np.concatenate([np.arange(10_000.0), [1e9]])
    assert max(summarise(values).quantiles) < 10_000
    rare = np.concatenate([np.repeat([0.0, 1.0], 500), np.full(MIN_ROWS - 1, 77.0)])
    assert summarise(rare).values == [0, 1]


def test_without_importances_every_column_weighs_alike():
    reference = make_reference(draw_rows(500, 1), np.zeros(5), {})
    assert set(reference.importance.values()) == {0.25}


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.one_of(st.floats(-1e6, 1e6), st.integers(0, 3).map(float), st.just(float("nan"))),
        min_size=1,
        max_size=400,
    ),
    st.integers(1, 600),
)
def test_what_is_drawn_lies_within_what_was_summarised(values, rows):
    column = np.array(values)
    summary = summarise(column)
    drawn = draw(summary, rows)
    known = drawn[~np.isnan(drawn)]

    assert len(drawn) == rows
    assert len(summary.quantiles) in (0, QUANTILES)
    if len(known):
        assert np.nanmin(column) <= known.min()
        assert known.max() <= np.nanmax(column)
    if summary.is_known:
        assert np.isnan(drawn).mean() == pytest.approx(summary.missing, abs=0.5 / rows + 1e-9)
    assert not can_be_tested(summary, np.full(rows, np.nan))
