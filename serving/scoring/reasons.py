"""Reasons of a score as sentences: those that raise it and those that lower it.

The contributions of all members, weighted by the stacker, add up to the release's log-odds
exactly; calibration and score map are monotone, so directions hold. Contributions of one
subject are summed: the symptoms of one questionnaire, the windows of one wearable channel.
Missing data give no reason, and severe symptoms none that lowers.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_repo.instruments import GAD7, PHQ9, Instrument
from mlruns_config.manifest import FeatureDescription, Stacker
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

#: A wearable column: channel, statistic, days.
_WINDOW = re.compile(
    r"(?P<channel>.+?)_(?:mean|sd|slope|share_missing|missing)_\d+|(?P<last>.+)_last"
)


@dataclass(frozen=True)
class Subject:
    """The subject of a reason: its columns, the one to show first."""

    name: str
    columns: tuple[int, ...]


def combine_attributions(
    stacker: Stacker, attributions: Mapping[str, Attribution], width: int
) -> Attribution:
    """Return the stack's attribution; a member without one counts as unexplained."""
    contributions: NDArray[np.float64] = np.zeros(width)
    baseline = stacker.intercept
    for name, attribution in attributions.items():
        coefficient = stacker.coefficients[name]
        contributions += coefficient * attribution.contributions
        baseline += coefficient * attribution.baseline
    return Attribution(baseline, contributions)


def explain(
    features: list[FeatureDescription], vector: Vector, attribution: Attribution
) -> list[ReasonPart]:
    """Return the strongest reasons, up to MAX_RAISING and MAX_LOWERING, strongest first."""
    values = vector[0]
    reasons = []
    for subject in list_subjects(features):
        present = [column for column in subject.columns if not np.isnan(values[column])]
        effect = float(attribution.contributions[present].sum()) if present else 0.0
        if abs(effect) >= MIN_EFFECT and not reassures_falsely(subject, features, values, effect):
            shown = present[0]
            reasons.append(describe_reason(features[shown], float(values[shown]), effect))
    ranked = sorted(reasons, key=lambda reason: -abs(reason.effect))
    raising = [reason for reason in ranked if reason.direction == "raises"][:MAX_RAISING]
    lowering = [reason for reason in ranked if reason.direction == "lowers"][:MAX_LOWERING]
    return sorted([*raising, *lowering], key=lambda reason: -abs(reason.effect))


def list_subjects(features: Sequence[FeatureDescription]) -> list[Subject]:
    """Return the features by subject, in their order; totals and means are shown first."""
    grouped: dict[str, list[int]] = {}
    for column, feature in enumerate(features):
        grouped.setdefault(name_subject(feature.name), []).append(column)
    return [
        Subject(name, tuple(sorted(columns, key=lambda n: rank_to_show(features[n].name))))
        for name, columns in grouped.items()
    ]


def name_subject(feature: str) -> str:
    """Return what a column is about: `phq9`, `steps`, or the column itself."""
    instrument = feature.partition("_")[0]
    if instrument in INSTRUMENTS:
        return instrument
    window = _WINDOW.fullmatch(feature)
    return (window["channel"] or window["last"]) if window else feature


def rank_to_show(feature: str) -> int:
    """Return which of a subject's columns is shown: a total, else the mean of 28 days."""
    return 0 if feature.endswith(("_total", "_mean_28")) else 1


def reassures_falsely(
    subject: Subject,
    features: Sequence[FeatureDescription],
    values: NDArray[np.float32],
    effect: float,
) -> bool:
    """Return True if a reason would show symptoms of at least a moderate level as lowering."""
    if effect > 0 or subject.name not in INSTRUMENTS:
        return False
    total, level = f"{subject.name}_total", INSTRUMENTS[subject.name][1]
    totals = [float(values[n]) for n in subject.columns if features[n].name == total]
    return not totals or not totals[0] < level


def describe_reason(feature: FeatureDescription, value: float, effect: float) -> ReasonPart:
    direction: Direction = "raises" if effect > 0 else "lowers"
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
