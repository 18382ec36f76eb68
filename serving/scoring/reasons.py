"""Reasons of a score as sentences: those that raise it and those that lower it.

The contributions of all members, weighted by the stacker, add up to the release's log-odds
exactly; calibration and score map are monotone, so directions hold. Contributions of one
subject are summed: the symptoms of one questionnaire, the windows of one wearable channel, the
counts of one kind of care and the days since it.
Missing data give no reason, and severe symptoms none that lowers.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from feature_repo.instruments import GAD7, PHQ9, Instrument
from mlruns_config.heads import Stacker
from mlruns_config.manifest import FeatureDescription
from serving.scoring.estimate import Vector
from serving.scoring.explainers import Attribution
from serving.scoring.parts import Direction, ReasonPart, Size

#: A clinician reads a few: the strongest that raise, and beside them those that lower.
MAX_RAISING = 3
MAX_LOWERING = 2

#: Smaller effects, in log-odds, are noise to a reader.
MIN_EFFECT = 0.02
#: An effect that multiplies the odds by 2, or by 1.25, or divides them.
LARGE_EFFECT = float(np.log(2))
MODERATE_EFFECT = float(np.log(1.25))

#: Questionnaires by the beginning of their columns' names, with the level that never lowers.
INSTRUMENTS: dict[str, tuple[Instrument, int]] = {"phq9": (PHQ9, 10), "gad7": (GAD7, 10)}

#: What has a yes/no column for each answer, labelled "sex: female": the answer is shown.
CHOICE = "sex"

#: Layouts kept: those of Production, a candidate and a shadow at once, with room to spare.
MAX_LAYOUTS = 8

#: A wearable column: channel, statistic, days.
_WINDOW = re.compile(
    r"(?P<channel>.+?)_(?:mean|sd|slope|share_missing|missing)_\d+|(?P<last>.+)_last"
)

#: A column of care: how often within so many days, or how long ago.
_CARE = re.compile(
    r"(?P<counted>.+?)(?:_encounters)?_(?:90|365)|days_since_(?P<since>(?:acute_)?psychiatric)"
)


@dataclass(frozen=True)
class Subject:
    """The subject of a reason: its columns, the one to show first."""

    name: str
    columns: tuple[int, ...]


@dataclass(frozen=True)
class SubjectLayout:
    """Subjects, their columns one after another, and where those of each begin."""

    subjects: tuple[Subject, ...]
    columns: NDArray[np.int64]
    starts: NDArray[np.int64]


def combine_attributions(
    stacker: Stacker, attributions: Mapping[str, Attribution], width: int
) -> Attribution:
    """Return the stack's attribution.

    All members estimate the same log-odds. Where some have no attribution, as the networks, the
    others stand for them with their weight: an effect would else appear smaller than it is.
    """
    contributions: NDArray[np.float64] = np.zeros(width)
    baseline = stacker.intercept
    explained = sum(stacker.coefficients[name] for name in attributions)
    scale = sum(stacker.coefficients.values()) / explained if explained else 1.0
    for name, attribution in attributions.items():
        coefficient = scale * stacker.coefficients[name]
        contributions += coefficient * attribution.contributions
        baseline += coefficient * attribution.baseline
    return Attribution(baseline, contributions)


def explain(
    features: list[FeatureDescription], vector: Vector, attribution: Attribution
) -> list[ReasonPart]:
    """Return the strongest reasons, up to MAX_RAISING and MAX_LOWERING, strongest first."""
    values = vector[0].tolist()
    room = {"raises": MAX_RAISING, "lowers": MAX_LOWERING}
    reasons = []
    for subject, effect in rank_effects(features, vector[0], attribution):
        direction = name_direction(effect)
        if room[direction] and not reassures_falsely(subject, features, values, effect):
            room[direction] -= 1
            shown = choose_shown(subject, values)
            reasons.append(describe_reason(features[shown], values[shown], effect))
    return reasons


def choose_shown(subject: Subject, values: Sequence[float]) -> int:
    """Return the column that a reason shows: the answer of a choice, else the first known one."""
    known = [column for column in subject.columns if not math.isnan(values[column])]
    if subject.name == CHOICE:
        return max(known, key=values.__getitem__)
    return known[0]


def rank_effects(
    features: Sequence[FeatureDescription], values: NDArray[np.float32], attribution: Attribution
) -> list[tuple[Subject, float]]:
    """Return the subjects with an effect of at least MIN_EFFECT log-odds, strongest first."""
    layout = lay_out_subjects(tuple(feature.name for feature in features))
    present = np.where(np.isnan(values), 0.0, attribution.contributions)
    effects = np.add.reduceat(present[layout.columns], layout.starts)
    strengths = np.abs(effects)
    ranked = np.argsort(-strengths, kind="stable")[: int((strengths >= MIN_EFFECT).sum())]
    return [(layout.subjects[n], float(effects[n])) for n in ranked]


@lru_cache(maxsize=MAX_LAYOUTS)
def lay_out_subjects(features: tuple[str, ...]) -> SubjectLayout:
    """Return named features by subject, in their order; totals and means are shown first."""
    grouped: dict[str, list[int]] = {}
    for column, name in enumerate(features):
        grouped.setdefault(name_subject(name), []).append(column)
    subjects = tuple(
        Subject(name, tuple(sorted(columns, key=lambda column: rank_to_show(features[column]))))
        for name, columns in grouped.items()
    )
    sizes = [len(subject.columns) for subject in subjects]
    columns = np.array([column for subject in subjects for column in subject.columns])
    return SubjectLayout(subjects, columns, np.cumsum([0, *sizes[:-1]]))


def name_subject(feature: str) -> str:
    """Return what a column is about: `phq9`, `steps`, `psychiatric`, `sex`, or itself."""
    instrument = feature.partition("_")[0]
    if instrument in INSTRUMENTS:
        return instrument
    window = _WINDOW.fullmatch(feature)
    if window:
        return window["channel"] or window["last"]
    if feature.startswith(f"{CHOICE}_"):
        return CHOICE
    care = _CARE.fullmatch(feature)
    return (care["counted"] or care["since"]) if care else feature


def rank_to_show(feature: str) -> int:
    """Return which of a subject's columns is shown: a total, a mean of 28 days, a year's count."""
    return (
        0 if feature.endswith(("_total", "_mean_28", "encounters_365", "_psychiatric_365")) else 1
    )


def reassures_falsely(
    subject: Subject,
    features: Sequence[FeatureDescription],
    values: Sequence[float],
    effect: float,
) -> bool:
    """Return True if a reason would show symptoms of at least a moderate level as lowering."""
    if effect > 0 or subject.name not in INSTRUMENTS:
        return False
    total, level = f"{subject.name}_total", INSTRUMENTS[subject.name][1]
    totals = [values[n] for n in subject.columns if features[n].name == total]
    return not totals or not totals[0] < level


def describe_reason(feature: FeatureDescription, value: float, effect: float) -> ReasonPart:
    direction = name_direction(effect)
    size = name_size(effect)
    finding = describe_finding(feature, value)
    return ReasonPart(
        feature=feature.name,
        label=feature.label,
        value=round(value, 3),
        unit=feature.unit,
        usual_low=feature.usual_low,
        usual_high=feature.usual_high,
        direction=direction,
        size=size,
        effect=round(effect, 3),
        text=f"{finding}; {direction} the priority, {size} effect",
    )


def name_direction(effect: float) -> Direction:
    return "raises" if effect > 0 else "lowers"


def name_size(effect: float) -> Size:
    if abs(effect) >= LARGE_EFFECT:
        return "large"
    return "moderate" if abs(effect) >= MODERATE_EFFECT else "small"


def describe_finding(feature: FeatureDescription, value: float) -> str:
    """Return a value in words: "PHQ-9 24 of 27, severe", "4 encounters in the past year"."""
    instrument = feature.name.removesuffix("_total")
    if feature.name.endswith("_total") and instrument in INSTRUMENTS:
        asked = INSTRUMENTS[instrument][0]
        total = round(value)
        return f"{asked.name} {total} of {asked.max_total}, {asked.severity(total)}"
    if feature.name.startswith(f"{CHOICE}_"):
        return feature.label if value >= 0.5 else f"{CHOICE}: other"
    if feature.unit == "yes/no":
        return f"{feature.label}: {'yes' if value >= 0.5 else 'no'}"
    if feature.unit == "count":
        return f"{show(value)} {feature.label.replace(' in a year', ' in the past year')}"
    unit = f" {feature.unit}" if feature.unit else ""
    if feature.usual_low is None or feature.usual_high is None:
        return f"{feature.label}: {show(value)}{unit}"
    usual = f"{show(feature.usual_low)} to {show(feature.usual_high)}"
    return f"{feature.label}: {show(value)}{unit} ({usual} is usual in this cohort)"


def show(value: float) -> str:
    """Return a number as a reader writes it: 11,000 and 0.85."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
