import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlruns_config.heads import Calibration, ScoreMap, Stacker
from serving.scoring.estimate import (
    Band,
    BandEdges,
    assemble_vector,
    list_missing_data,
    map_to_score,
    stack_log_odds,
    to_log_odds,
    to_probability,
)
from tests.fixtures.manifests import make_manifest
from tests.fixtures.releases import FEATURES

EDGES = BandEdges()
ORDER = list(Band)
probabilities = st.floats(0, 1)


@st.composite
def score_maps(draw):
    inner = draw(st.lists(st.floats(0.001, 0.999), min_size=3, max_size=3, unique=True))
    return ScoreMap(
        probabilities=[0, *sorted(inner), 1], scores=[0, 25, 50, 75, 100], operating_points={}
    )


@given(score_maps(), probabilities, probabilities)
def test_a_higher_probability_never_gets_a_lower_score_or_band(score_map, one, other):
    low, high = sorted([one, other])
    low_score, high_score = map_to_score(score_map, low), map_to_score(score_map, high)

    assert 0 <= low_score <= high_score <= 100
    assert ORDER.index(EDGES.find_band(low_score)) <= ORDER.index(EDGES.find_band(high_score))


@pytest.mark.parametrize(
    ("score", "band"),
    [
        (0, "low"),
        (25, "low"),
        (25.1, "moderate"),
        (50, "moderate"),
        (50.1, "high"),
        (75, "high"),
        (75.1, "critical"),
        (100, "critical"),
    ],
)
def test_bands_change_just_above_the_guides_edges(score, band):
    assert EDGES.find_band(score) == band


@given(st.floats(-700, 700))
def test_log_odds_become_probabilities_without_overflow(log_odds):
    assert 0 <= to_probability(log_odds) <= 1


@given(st.floats(0.00001, 0.99999))
def test_log_odds_and_probability_are_inverse(probability):
    assert to_probability(to_log_odds(probability)) == pytest.approx(probability, rel=1e-9)


@pytest.mark.parametrize("certain", [0.0, 1.0])
def test_a_certain_member_does_not_make_the_stack_infinite(certain):
    stacker = Stacker(intercept=0, coefficients={"lightgbm": 1.0})

    assert np.isfinite(stack_log_odds(stacker, {"lightgbm": certain}))


def test_a_weighted_member_that_did_not_answer_is_an_error():
    with pytest.raises(KeyError):
        stack_log_odds(Stacker(intercept=0, coefficients={"lightgbm": 1.0}), {})


def test_calibration_follows_its_points():
    calibration = Calibration(kind="isotonic", inputs=[0, 0.5, 1], outputs=[0.1, 0.2, 0.8])

    assert calibration.apply(0.75) == pytest.approx(0.5)


def test_a_vector_follows_the_manifests_order_and_marks_what_is_missing():
    vector = assemble_vector(FEATURES, {"age": 40, "phq9_total": 12, "gad7_total": None})

    assert vector.dtype == np.float32
    assert vector.shape == (1, len(FEATURES))
    assert (vector[0, 0], vector[0, -1]) == (12, 40)
    assert np.isnan(vector[0, 1:-1]).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), None])
def test_a_value_that_is_no_number_counts_as_missing(value):
    assert np.isnan(assemble_vector(FEATURES, {"age": value})[0, -1])


def test_a_data_type_is_missing_when_none_of_its_features_has_a_value():
    vector = assemble_vector(FEATURES, {"steps_mean_28": 0.0, "age": 30})

    assert list_missing_data(make_manifest(features=FEATURES), vector) == ["survey", "emr"]
