"""Which severity rules hold for a case: by what was sent, or by stored answers that still count."""

import math
from collections.abc import Mapping

from feature_repo.online import Answers
from mlruns_config.severity import SeverityRule, SeverityRules


def find_holding_rules(
    rules: SeverityRules, values: Mapping[str, float], answers: Answers
) -> list[SeverityRule]:
    """Return the rules that hold, in the order of the file.

    `values` are the features of the answers (`compute_answer_features`). Without a PHQ-9 in the
    request, a stored one counts for `stored_answers_max_days`.
    """
    usable = add_least_total(blank_unusable(rules, values, answers))
    return [
        rule
        for rule in rules.rule
        if rule.holds(usable) and (not rule.sent_only or was_sent(rule, answers))
    ]


def blank_unusable(
    rules: SeverityRules, values: Mapping[str, float], answers: Answers
) -> Mapping[str, float]:
    """Return the values without those of a stored PHQ-9 that is too old."""
    if answers.phq9 is not None or answers.phq9_total is not None:
        return values
    if values.get("days_since_phq9", math.nan) <= rules.stored_answers_max_days:
        return values
    return {name: value for name, value in values.items() if not name.startswith("phq9_")}


def add_least_total(values: Mapping[str, float]) -> Mapping[str, float]:
    """Return the values with the sum of the known PHQ-9 items where the total is unknown.

    The total is at least that: an item that is missing counts as no good news.
    """
    items = [value for name, value in values.items() if name.startswith("phq9_item_")]
    answered = [value for value in items if not math.isnan(value)]
    if not answered or not math.isnan(values.get("phq9_total", math.nan)):
        return values
    return {**values, "phq9_total": float(sum(answered))}


def was_sent(rule: SeverityRule, answers: Answers) -> bool:
    """Return True if the request carries the questionnaire of every measure of a rule."""
    sent = {
        "phq9": answers.phq9 is not None or answers.phq9_total is not None,
        "gad7": answers.gad7 is not None,
    }
    return all(sent[name.partition("_")[0]] for name in rule.at_least)
