"""The conformal interval: it holds what it says it holds, on individuals it was not made of."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from feature_repo.consent_terms import DATA_TYPES
from flows.models.interval import (
    COVERAGE,
    GROUP_SIZE,
    NEIGHBOURS,
    compare_rates,
    conform_scale,
    draw_groups,
    measure_interval,
)
from mlruns_config.interval import (
    ConformalInterval,
    list_missing_choices,
    measure_spread,
    name_missing,
)
from serving.scoring.estimate import find_interval
from tests.fixtures.manifests import make_conformal


def draw(rows: int = 4000, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities that are right, and outcomes drawn by them."""
    random = np.random.default_rng(seed)
    truth = random.beta(1, 6, rows)
    return truth, random.random(rows) < truth


def cover(interval: ConformalInterval, probabilities: np.ndarray, labels: np.ndarray) -> float:
    widths = interval.measure_half_width(probabilities, ())
    return compare_rates(probabilities, widths, labels, seed=2).measure_coverage()


def test_an_interval_without_a_scale_for_every_choice_is_refused():
    scales = make_conformal().scales
    del scales["wearable+emr"]
    with pytest.raises(ValidationError, match="every set of missing"):
        ConformalInterval(coverage=0.9, group_size=20, scales=scales, abstain_above=0.35)


def test_an_interval_that_missing_data_narrow_is_refused():
    scales = make_conformal().scales | {"survey+emr": 1.0}
    with pytest.raises(ValidationError, match="missing survey"):
        ConformalInterval(coverage=0.9, group_size=20, scales=scales, abstain_above=0.35)


def test_every_choice_of_what_is_missing_has_a_name_of_its_own():
    choices = list_missing_choices()
    assert len({name_missing(choice) for choice in choices}) == len(choices) == 8
    assert (choices[0], choices[-1]) == ((), DATA_TYPES)
    assert name_missing(["emr", "survey"]) == "survey+emr"


@pytest.mark.parametrize("seed", range(3))
def test_new_individuals_are_covered_as_often_as_it_says(seed):
    probabilities, labels = draw(seed=seed)
    interval = measure_interval(dict.fromkeys(list_missing_choices(), probabilities), labels, 7)

    assert cover(interval, *draw(20_000, seed + 100)) == pytest.approx(COVERAGE, abs=0.02)


def test_where_probabilities_are_wrong_the_interval_is_wider_and_still_covers():
    probabilities, labels = draw(8000)
    wrong = np.sqrt(probabilities)
    half = np.arange(8000) % 2 == 0
    by_missing = dict.fromkeys(list_missing_choices(), wrong[half])
    interval = measure_interval(by_missing, labels[half], 7)

    assert interval.scales["none"] > 1.5 * conform_scale(probabilities[half], labels[half], 7)
    assert cover(interval, wrong[~half], labels[~half]) == pytest.approx(COVERAGE, abs=0.03)


def test_a_data_type_without_which_probabilities_are_wrong_widens_where_it_is_missing():
    probabilities, labels = draw()
    by_missing = {
        choice: np.full_like(probabilities, 0.5) if "survey" in choice else probabilities
        for choice in list_missing_choices()
    }
    scales = measure_interval(by_missing, labels, 7).scales

    assert scales["none"] == scales["wearable"] == scales["emr"] == scales["wearable+emr"]
    assert scales["survey"] > 2 * scales["none"]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000))
def test_scales_never_shrink_with_more_missing(seed):
    random = np.random.default_rng(seed)
    _, labels = draw(60, seed)
    by_missing = {choice: random.random(60) for choice in list_missing_choices()}
    scales = measure_interval(by_missing, labels, seed).scales

    for choice in list_missing_choices():
        for kind in choice:
            fewer = [other for other in choice if other != kind]
            assert scales[name_missing(fewer)] <= scales[name_missing(choice)]


def test_serving_cuts_to_what_training_measured_by():
    conformal = make_conformal(1.5)
    probabilities = np.linspace(0, 1, 21)
    widths = conformal.measure_half_width(probabilities, ["emr"])
    for probability, width in zip(probabilities, widths, strict=True):
        interval = find_interval(conformal, float(probability), ["emr"])
        assert interval.low == pytest.approx(max(0, probability - width))
        assert interval.high == pytest.approx(min(1, probability + width))


@given(st.floats(0, 1), st.integers(1, 500))
def test_the_spread_is_never_nothing_and_widest_in_the_middle(probability, group_size):
    assert 0 < measure_spread(probability, group_size) <= measure_spread(0.5, group_size)


def test_groups_are_of_neighbours():
    probabilities = np.random.default_rng(1).permutation(np.linspace(0, 1, 5001))
    groups = probabilities[draw_groups(probabilities, 3)]

    assert groups.shape[1] == GROUP_SIZE
    assert np.ptp(groups, axis=1).max() <= NEIGHBOURS / 5000
    assert groups.min() < 0.01
    assert groups.max() > 0.99


def test_few_rows_give_groups_too():
    assert draw_groups(np.array([0.1, 0.9]), 1).max() <= 1
