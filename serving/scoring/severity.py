"""Which severity rules hold for a case: by what was sent, or by stored answers that still count."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from feature_repo.answer_features import PHQ9_ITEMS
from feature_repo.online import Answers
from mlruns_config.severity import SeverityRule, SeverityRules


def find_holding_rules(
    rules: SeverityRules, values: Mapping[str, float], answers: Answers
) -> list[SeverityRule]:
    """Return the rules that hold, in the order of the file.

    `values` are the features of the answers (`compute_answer_features`). Without a PHQ-9 in the
    request, a stored one counts for `stored_answers_max_days`.
    """
    usable = raise_to_least(blank_unusable(rules, values, answers), answers)
    return [
        rule
        for rule in rules.rule
        if rule.holds(usable) and (not rule.sent_only or was_sent(rule, answers))
    ]


def blank_unusable(
    rules: SeverityRules, values: Mapping[str, float], answers: Answers
) -> Mapping[str, float]:
    """Return the values without those of a stored PHQ-9 that is too old."""
    if was_phq9_sent(answers):
        return values
    if values.get("days_since_phq9", math.nan) <= rules.stored_answers_max_days:
        return values
    return {name: value for name, value in values.items() if not name.startswith("phq9_")}


def raise_to_least(values: Mapping[str, float], answers: Answers) -> Mapping[str, float]:
    """Return the values with no measure below what the known items alone make it.

    A missing item counts as no good news: it makes no total and no rise unknown, and a lower
    stored GAD-7 does not replace an incomplete one.
    """
    least = compute_least(values, answers)
    raised = {name: np.fmax(values.get(name, math.nan), least[name]) for name in least}
    return {**values, **{name: float(value) for name, value in raised.items()}}


def compute_least(values: Mapping[str, float], answers: Answers) -> dict[str, float]:
    """Return what totals and rises are at least by the known items, NaN where nothing is known."""
    items = [values.get(name, math.nan) for name in PHQ9_ITEMS]
    phq9 = float(np.fmax(values.get("phq9_total", math.nan), _add_known(items)))
    gad7 = [math.nan if answer is None else answer for answer in answers.gad7 or ()]
    before = "stored_phq9_total" if was_phq9_sent(answers) else "previous_phq9_total"
    return {
        "phq9_total": phq9,
        "phq9_change": phq9 - values.get(before, math.nan),
        "phq9_above_own_mean": phq9 - values.get("phq9_mean_365", math.nan),
        "gad7_total": _add_known(gad7),
    }


def _add_known(items: Sequence[float]) -> float:
    """Return the sum of the known items, NaN without one."""
    known = [item for item in items if not math.isnan(item)]
    return float(sum(known)) if known else math.nan


def was_sent(rule: SeverityRule, answers: Answers) -> bool:
    """Return True if the request carries the questionnaire of every measure of a rule."""
    sent = {
        "phq9": was_phq9_sent(answers),
        "gad7": answers.gad7 is not None,
    }
    return all(sent[name.partition("_")[0]] for name in rule.at_least)


def was_phq9_sent(answers: Answers) -> bool:
    return answers.phq9 is not None or answers.phq9_total is not None
