"""The PHQ-9 total of what a request brings: of items, of a total, and of both."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.answer_features import PHQ9_ANSWERS, REPORTED_PHQ9_TOTAL, compute_answer_features

SEVERE_BUT_FOR_TWO = [3, 3, 3, None, 3, 3, 3, None, 0]


def find_total(phq9=(None,) * 9, reported=None, **stored):
    inputs = {**dict(zip(PHQ9_ANSWERS, phq9, strict=True)), REPORTED_PHQ9_TOTAL: reported}
    return float(compute_answer_features(inputs | stored)["phq9_total"])


def test_items_of_which_one_is_missing_have_no_total_of_their_own():
    assert math.isnan(find_total(SEVERE_BUT_FOR_TWO))
    assert math.isnan(find_total(SEVERE_BUT_FOR_TWO, stored_phq9_total=3))


@pytest.mark.parametrize("reported", [18, 21, 24])
def test_a_total_counts_beside_items_of_which_some_are_missing(reported):
    assert find_total(SEVERE_BUT_FOR_TWO, reported) == reported


@pytest.mark.parametrize("reported", [0, 17])
def test_a_total_below_the_items_beside_it_does_not_lower_them(reported):
    assert find_total(SEVERE_BUT_FOR_TWO, reported) == 18


def test_a_total_alone_counts_as_it_is():
    assert find_total(reported=14) == 14
    assert find_total(reported=0, stored_phq9_total=20) == 0


def test_the_rise_is_measured_from_a_total_beside_incomplete_items():
    inputs = dict(zip(PHQ9_ANSWERS, SEVERE_BUT_FOR_TWO, strict=True))
    inputs |= {REPORTED_PHQ9_TOTAL: 22, "stored_phq9_total": 9}

    assert compute_answer_features(inputs)["phq9_change"] == 13


@given(st.lists(st.integers(0, 3), min_size=9, max_size=9))
@settings(deadline=None)
def test_complete_items_are_their_own_total(answers):
    assert find_total(answers) == find_total(answers, reported=sum(answers)) == sum(answers)
