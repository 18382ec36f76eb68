"""What the answers sent with a request say, seen against what is stored: the pure part.

`compute_answer_features` is the one definition: `request_answers.py` gives it to training as
Feast's on-demand view, `online.py` to serving, which does without Feast.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.instruments import GAD7, PHQ9

Numbers = NDArray[np.float64]

DAYS_PER_YEAR = 365.25
SECONDS_PER_DAY = 86400

PHQ9_ANSWERS = tuple(f"answered_phq9_{n}" for n in range(1, PHQ9.item_count + 1))
GAD7_ANSWERS = tuple(f"answered_gad7_{n}" for n in range(1, GAD7.item_count + 1))
#: The items of the PHQ-9 that counts: the one sent, else the stored one.
PHQ9_ITEMS = tuple(f"phq9_item_{n}" for n in range(1, PHQ9.item_count + 1))
#: Fields of survey_history that hold the items of the last stored PHQ-9.
STORED_PHQ9_ITEMS = tuple(f"stored_phq9_item_{n}" for n in range(1, PHQ9.item_count + 1))
#: A total given without its items.
REPORTED_PHQ9_TOTAL = "reported_phq9_total"
#: Days since 1970-01-01 of the screening, fractions allowed.
INDEX_DAY = "index_day"

REQUEST_FIELDS = (*PHQ9_ANSWERS, *GAD7_ANSWERS, REPORTED_PHQ9_TOTAL, INDEX_DAY)

#: Name -> (plain words, unit). Kept beside the schema: Feast compares an on-demand view's
#: fields with what it infers of them, descriptions and tags included.
ANSWER_FEATURES = {
    **{name: (f"PHQ-9 item {n}", "points") for n, name in enumerate(PHQ9_ITEMS, 1)},
    "phq9_total": ("PHQ-9 total", "points"),
    "gad7_total": ("GAD-7 total", "points"),
    "phq9_change": ("change of PHQ-9 since the previous one", "points"),
    "phq9_above_own_mean": ("PHQ-9 above the person's own mean of a year", "points"),
    "gad7_above_own_mean": ("GAD-7 above the person's own mean of a year", "points"),
    "days_since_phq9": ("days since the last stored PHQ-9", "days"),
    "age": ("age", "years"),
}


#: Every name under which the answer to one item is kept.
ITEM_ANSWERS = frozenset(
    {
        *(*PHQ9_ANSWERS, *GAD7_ANSWERS, *STORED_PHQ9_ITEMS),
        *PHQ9_ITEMS,
    }
)

#: Of ANSWER_FEATURES, those that today's answers alone make known.
CURRENT_ANSWERS = frozenset({*PHQ9_ITEMS, "phq9_total", "gad7_total"})

#: Of ANSWER_FEATURES, those that more of is not worse.
NO_SYMPTOMS = ("days_since_phq9", "age")


def compute_answer_features(inputs: Mapping[str, Any]) -> dict[str, Numbers]:
    """Return the features of the answers, NaN where something needed is missing.

    `inputs` holds REQUEST_FIELDS and the fields of survey_history and demographics, each a
    number or a sequence of numbers (one per individual); None and NaN both mean missing.
    Without answers in the request the stored ones stand in for them, compared with the
    questionnaire before.
    """
    answers = _together(inputs, PHQ9_ANSWERS)
    asked = ~np.isnan(answers).all(axis=0)
    reported = _numbers(inputs, REPORTED_PHQ9_TOTAL)
    current = asked | ~np.isnan(reported)
    stored = _together(inputs, STORED_PHQ9_ITEMS)
    stored_total = _numbers(inputs, "stored_phq9_total")
    items_total = answers.sum(axis=0)
    # Beside items of which some are missing the reported total counts, never less than they add up.
    at_least = np.maximum(reported, np.nansum(answers, axis=0))
    given_total = np.where(np.isnan(items_total), at_least, items_total)
    phq9 = np.where(current, given_total, stored_total)
    before = np.where(current, stored_total, _numbers(inputs, "previous_phq9_total"))
    given_gad7 = _together(inputs, GAD7_ANSWERS).sum(axis=0)
    gad7 = np.where(np.isnan(given_gad7), _numbers(inputs, "stored_gad7_total"), given_gad7)
    items = np.where(current, answers, stored)
    index_day = _numbers(inputs, INDEX_DAY)
    return {
        **dict(zip(PHQ9_ITEMS, items, strict=True)),
        "phq9_total": phq9,
        "gad7_total": gad7,
        "phq9_change": phq9 - before,
        "phq9_above_own_mean": phq9 - _numbers(inputs, "phq9_mean_365"),
        "gad7_above_own_mean": gad7 - _numbers(inputs, "gad7_mean_365"),
        "days_since_phq9": np.floor(index_day) - _numbers(inputs, "stored_phq9_at"),
        "age": 1970 + index_day / DAYS_PER_YEAR - _numbers(inputs, "birth_year"),
    }


def _together(inputs: Mapping[str, Any], names: Sequence[str]) -> Numbers:
    # NumPy reads None as NaN where the type is a number.
    return np.array([inputs.get(name) for name in names], dtype=np.float64)


def _numbers(inputs: Mapping[str, Any], name: str) -> Numbers:
    value = inputs.get(name)
    return np.asarray(np.nan if value is None else value, dtype=np.float64)
