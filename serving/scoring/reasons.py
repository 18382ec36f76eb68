"""Why a score is what it is, in plain words: raising and protective reasons.

The contributions of all members, weighted by the stacker, add up to the release's
log-odds exactly; calibration and score map are monotone, so directions hold.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mlruns_config.release import FeatureDescription, Stacker
from serving.scoring.estimate import Vector
from serving.scoring.explainers import Attribution
from serving.scoring.parts import Direction, ReasonPart, Size

REASONS_PER_DIRECTION = 5

#: Smaller effects, in log-odds, are noise to a reader.
MIN_EFFECT = 0.02
#: An effect that multiplies the odds by 2, or by 1.25, or divides them.
LARGE_EFFECT = float(np.log(2))
MODERATE_EFFECT = float(np.log(1.25))


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
    """Return the strongest reasons, up to five that raise and five that lower, strongest first."""
    effects, sizes = attribution.contributions, np.abs(attribution.contributions)
    told = np.flatnonzero(sizes >= MIN_EFFECT)
    strongest = told[np.argsort(-sizes[told], kind="stable")]
    raising, lowering = strongest[effects[strongest] > 0], strongest[effects[strongest] < 0]
    kept = {*raising[:REASONS_PER_DIRECTION].tolist(), *lowering[:REASONS_PER_DIRECTION].tolist()}
    return [
        describe_reason(features[column], float(vector[0, column]), float(effects[column]))
        for column in strongest.tolist()
        if column in kept
    ]


def describe_reason(feature: FeatureDescription, value: float, effect: float) -> ReasonPart:
    known = None if np.isnan(value) else value
    direction: Direction = "raises" if effect > 0 else "lowers"
    size = name_size(effect)
    finding = _describe_finding(feature, known)
    return ReasonPart(
        feature=feature.name,
        label=feature.label,
        value=None if known is None else round(known, 3),
        unit=feature.unit,
        usual_low=feature.usual_low,
        usual_high=feature.usual_high,
        direction=direction,
        size=size,
        effect=round(effect, 3),
        text=f"{feature.label}: {finding}; {direction} the priority, {size} effect",
    )


def name_size(effect: float) -> Size:
    if abs(effect) >= LARGE_EFFECT:
        return "large"
    return "moderate" if abs(effect) >= MODERATE_EFFECT else "small"


def _describe_finding(feature: FeatureDescription, value: float | None) -> str:
    if value is None:
        return "no data"
    unit = f" {feature.unit}" if feature.unit else ""
    if feature.usual_low is None or feature.usual_high is None:
        return f"{value:.4g}{unit}"
    return f"{value:.4g}{unit} (usually {feature.usual_low:.4g} to {feature.usual_high:.4g})"
