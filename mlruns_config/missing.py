"""Missing patterns: which parts of what is known about a person are missing as a whole.

Calibration holds within each pattern: a probability of 30 % means 30 % also of people of whom
only today's answers are known.
"""

from collections.abc import Collection
from itertools import combinations

from feature_repo.answer_features import CURRENT_ANSWERS
from feature_repo.consent_terms import DATA_TYPES

#: The earlier questionnaires, where today's answers are known.
HISTORY = "history"
PARTS = (*DATA_TYPES, HISTORY)
NOTHING = "none"


def belongs_to(part: str, name: str, data_type: str | None) -> bool:
    """Return True if a feature is of a part: of a data type, or of the earlier questionnaires."""
    if part == HISTORY:
        return data_type == "survey" and name not in CURRENT_ANSWERS
    return data_type == part


def name_pattern(missing: Collection[str]) -> str:
    """Return the name of a pattern: "wearable+emr", "none". Without survey data, no history."""
    kept = [part for part in PARTS if part in missing]
    if "survey" in kept:
        kept = [part for part in kept if part != HISTORY]
    return "+".join(kept) or NOTHING


def list_patterns() -> list[tuple[str, ...]]:
    """Return every pattern once, the smaller ones first."""
    sizes = range(len(PARTS) + 1)
    choices = [choice for size in sizes for choice in combinations(PARTS, size)]
    return [choice for choice in choices if not {"survey", HISTORY} <= set(choice)]
