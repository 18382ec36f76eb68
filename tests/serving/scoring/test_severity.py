"""Which severity rules hold: for answers that were sent, and for stored ones that still count."""

import math
from datetime import UTC, date, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.online import Answers
from mlruns_config.severity import SeverityRule, SeverityRules
from serving.scoring.severity import find_holding_rules

NOW = datetime(2026, 3, 1, tzinfo=UTC)
MAX_DAYS = 28
NOTHING_SENT = Answers(NOW)
PHQ9_SENT = Answers(NOW, phq9=[3] * 9)
TOTAL_SENT = Answers(NOW, phq9_total=27)
GAD7_SENT = Answers(NOW, gad7=[3] * 7)


def make_rule(code, sent_only=False, **at_least):
    parts = {"text": code, "source": code, "decided": date(2026, 3, 1), "band": "high"}
    return SeverityRule(code=code, at_least=at_least, sent_only=sent_only, **parts)


RULES = SeverityRules(
    version=1,
    stored_answers_max_days=MAX_DAYS,
    rule=[
        make_rule("severe_phq9", phq9_total=20),
        make_rule("rise", phq9_total=10, phq9_change=5),
        make_rule("above_mean", phq9_total=10, phq9_above_own_mean=5),
        make_rule("severe_gad7", gad7_total=15, sent_only=True),
        make_rule("both_sent", gad7_total=15, phq9_total=20, sent_only=True),
    ],
)


def find(answers, **values):
    return [rule.code for rule in find_holding_rules(RULES, values, answers)]


def test_no_rule_holds_of_whom_nothing_is_known():
    assert find(NOTHING_SENT) == []


@pytest.mark.parametrize("days", [MAX_DAYS + 1, math.nan])
def test_a_stored_phq9_that_is_too_old_or_of_unknown_age_does_not_count(days):
    assert find(NOTHING_SENT, phq9_total=27, phq9_change=20, days_since_phq9=days) == []


def test_a_stored_phq9_without_an_age_does_not_count():
    assert find(NOTHING_SENT, phq9_total=27) == []


@pytest.mark.parametrize("days", [0, MAX_DAYS])
def test_a_stored_phq9_counts_up_to_its_last_day(days):
    assert find(NOTHING_SENT, phq9_total=20, days_since_phq9=days) == ["severe_phq9"]


@pytest.mark.parametrize("answers", [PHQ9_SENT, TOTAL_SENT], ids=["items", "total"])
def test_a_phq9_that_was_sent_counts_however_old_the_stored_one_is(answers):
    assert find(answers, phq9_total=20, days_since_phq9=400) == ["severe_phq9"]


def test_every_rule_that_holds_is_returned_in_the_order_of_the_file():
    found = find(PHQ9_SENT, phq9_total=20, phq9_change=5, gad7_total=21)

    assert found == ["severe_phq9", "rise"]


@pytest.mark.parametrize("answers", [NOTHING_SENT, PHQ9_SENT, TOTAL_SENT])
def test_a_rule_for_sent_answers_ignores_a_stored_gad7(answers):
    assert "severe_gad7" not in find(answers, gad7_total=21, days_since_phq9=0)


def test_a_rule_for_sent_answers_holds_for_a_gad7_that_was_sent():
    assert find(GAD7_SENT, gad7_total=15) == ["severe_gad7"]


@pytest.mark.parametrize(
    ("sent", "holds"),
    [
        ({"phq9": [3] * 9, "gad7": [3] * 7}, True),
        ({"phq9_total": 27, "gad7": [3] * 7}, True),
        ({"phq9": [3] * 9}, False),
        ({"gad7": [3] * 7}, False),
    ],
    ids=str,
)
def test_a_rule_for_sent_answers_needs_every_questionnaire_it_measures(sent, holds):
    answers = Answers(NOW, **sent)
    found = find(answers, phq9_total=27, gad7_total=21, days_since_phq9=0)

    assert ("both_sent" in found) is holds


def items(answers):
    return {
        f"phq9_item_{number}": math.nan if answer is None else float(answer)
        for number, answer in enumerate(answers, 1)
    }


@given(st.lists(st.none() | st.integers(0, 3), min_size=9, max_size=9))
@settings(deadline=None)
def test_the_answered_items_count_where_the_total_is_unknown(answers):
    found = find(PHQ9_SENT, phq9_total=math.nan, **items(answers))

    assert ("severe_phq9" in found) is (sum(one or 0 for one in answers) >= 20)


def test_the_answered_items_count_where_no_total_is_named():
    assert find(PHQ9_SENT, **items([3] * 7 + [None] * 2)) == ["severe_phq9"]


def test_a_known_total_is_not_replaced_by_a_lower_sum_of_the_items():
    assert find(TOTAL_SENT, phq9_total=20, **items([3] + [None] * 8)) == ["severe_phq9"]


def test_items_without_a_single_answer_make_no_total():
    assert find(PHQ9_SENT, phq9_total=math.nan, **items([None] * 9)) == []


@pytest.mark.parametrize("stored", [math.nan, 3])
@pytest.mark.parametrize(("missing", "holds"), [(1, True), (2, True), (3, False)])
def test_the_answered_items_of_an_incomplete_gad7_count(stored, missing, holds):
    answers = Answers(NOW, gad7=[3] * (7 - missing) + [None] * missing)

    assert ("severe_gad7" in find(answers, gad7_total=stored)) is holds


def test_a_total_of_its_own_counts_where_the_answered_items_of_a_gad7_are_fewer():
    answers = Answers(NOW, gad7=[3] + [None] * 6)

    assert find(answers, gad7_total=15) == ["severe_gad7"]


def test_a_gad7_without_a_single_answer_makes_no_total():
    assert find(Answers(NOW, gad7=[None] * 7)) == []


# A rise of an incomplete PHQ-9

TWELVE_OR_MORE = items([3, 3, 3, None, 3, None, None, None, 0])


@pytest.mark.parametrize(("before", "holds"), [(7, True), (8, False), (math.nan, False)])
def test_a_rise_of_the_answered_items_alone_counts(before, holds):
    known = {"stored_phq9_total": before, "previous_phq9_total": 0, "phq9_change": math.nan}

    assert ("rise" in find(PHQ9_SENT, **TWELVE_OR_MORE, **known)) is holds


@pytest.mark.parametrize(("before", "holds"), [(7, True), (8, False)])
def test_a_rise_of_stored_items_is_measured_from_the_phq9_before_them(before, holds):
    known = {"stored_phq9_total": 0, "previous_phq9_total": before, "days_since_phq9": 1}

    assert ("rise" in find(NOTHING_SENT, **TWELVE_OR_MORE, **known)) is holds


@pytest.mark.parametrize(("mean", "holds"), [(7, True), (7.5, False)])
def test_a_rise_of_the_answered_items_above_the_own_mean_counts(mean, holds):
    found = find(PHQ9_SENT, **TWELVE_OR_MORE, phq9_mean_365=mean)

    assert ("above_mean" in found) is holds


def test_a_known_rise_is_not_replaced_by_a_lower_one():
    known = {"phq9_total": 12, "phq9_change": 5, "stored_phq9_total": 10}

    assert find(PHQ9_SENT, **known) == ["rise"]


def test_a_stored_phq9_that_is_too_old_has_not_risen():
    known = {"stored_phq9_total": 0, "previous_phq9_total": 0, "days_since_phq9": MAX_DAYS + 1}

    assert find(NOTHING_SENT, **TWELVE_OR_MORE, **known) == []
