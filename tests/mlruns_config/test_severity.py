"""The severity rules as they are read from their file."""

import math
from dataclasses import dataclass
from datetime import date

import pytest
from pydantic import ValidationError

from mlruns_config.severity import SeverityRule, SeverityRules, load_severity_rules

RULE = {
    "code": "marked_rise",
    "at_least": {"phq9_total": 10, "phq9_change": 5},
    "band": "high",
    "text": "PHQ-9 has risen.",
    "source": "doi 10.1016/j.genhosppsych.2012.06.009",
    "decided": date(2026, 11, 28),
}
RULES = {"version": 1, "stored_answers_max_days": 0, "rule": [RULE]}


@pytest.mark.parametrize(
    "changes",
    [
        {"code": "ab"},
        {"code": "Marked Rise"},
        {"at_least": {}},
        {"band": "low"},
        {"sent_onyl": True},
    ],
    ids=str,
)
def test_an_unusable_rule_is_refused(changes):
    with pytest.raises(ValidationError):
        SeverityRule.model_validate(RULE | changes)


@pytest.mark.parametrize(
    "changes",
    [{"version": 0}, {"stored_answers_max_days": -1}, {"rule": []}, {"rules": []}],
    ids=str,
)
def test_an_unusable_file_of_rules_is_refused(changes):
    with pytest.raises(ValidationError):
        SeverityRules.model_validate(RULES | changes)


def test_a_first_version_and_stored_answers_of_today_alone_are_accepted():
    rules = SeverityRules.model_validate(RULES)

    assert (rules.version, rules.stored_answers_max_days, len(rules.rule)) == (1, 0, 1)


def test_rules_cannot_be_changed_once_they_are_read():
    rules = SeverityRules.model_validate(RULES)

    with pytest.raises(ValidationError):
        rules.stored_answers_max_days = 365
    with pytest.raises(ValidationError):
        rules.rule[0].band = "moderate"


@pytest.mark.parametrize(
    ("total", "change", "holds"),
    [
        (10, 5, True),
        (27, 27, True),
        (9, 5, False),
        (10, 4, False),
        (10, math.nan, False),
        (math.nan, 5, False),
    ],
)
def test_a_rule_holds_where_every_measure_reaches_its_bound(total, change, holds):
    rule = SeverityRule.model_validate(RULE)

    assert rule.holds({"phq9_total": total, "phq9_change": change}) is holds


def test_a_measure_that_is_not_there_reaches_no_bound():
    assert SeverityRule.model_validate(RULE).holds({"phq9_total": 27}) is False


def test_a_rule_counts_for_stored_answers_unless_its_file_says_otherwise():
    assert SeverityRule.model_validate(RULE).sent_only is False


@dataclass(frozen=True)
class Published:
    """A rule as its source gives it."""

    at_least: dict[str, float]
    band: str
    sent_only: bool = False


#: Kroenke 2001 and 2012, Spitzer 2006: severe from 20 and from 15, a rise of 5 to 10 or more.
PUBLISHED = {
    "severe_phq9": Published({"phq9_total": 20}, "high"),
    "marked_rise": Published({"phq9_total": 10, "phq9_change": 5}, "high"),
    "marked_rise_above_own_mean": Published({"phq9_total": 10, "phq9_above_own_mean": 5}, "high"),
    "severe_gad7": Published({"gad7_total": 15}, "moderate", sent_only=True),
}


def test_the_rules_in_force_have_the_bounds_of_their_sources():
    rules = load_severity_rules()

    assert rules.stored_answers_max_days == 28
    assert {
        rule.code: Published(rule.at_least, rule.band, rule.sent_only) for rule in rules.rule
    } == PUBLISHED
