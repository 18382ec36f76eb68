"""The release in a few rules: a surrogate tree made at training, read at serving.

A rule says of an individual what the release says of people like this on average; how much
of the release the rules tell is their fidelity.
"""

import numpy as np

from mlruns_config.manifest import BEYOND_ALL, Condition, ReleaseManifest, Rule
from serving.scoring.estimate import Vector
from serving.scoring.parts import RulePart


def match_rule(manifest: ReleaseManifest, vector: Vector) -> RulePart | None:
    """Return the rule that holds, None where the release came without rules."""
    if manifest.surrogate is None:
        return None
    row = dict(zip(manifest.columns, vector[0].tolist(), strict=True))
    # Exactly one holds: the rules are the leaves of a tree.
    (rule,) = [
        rule
        for rule in manifest.surrogate.rules
        if all(holds(condition, row[condition.feature]) for condition in rule.conditions)
    ]
    return RulePart(
        text=describe(manifest, rule),
        probability=rule.probability,
        share=rule.share,
        fidelity=manifest.surrogate.fidelity,
    )


def holds(condition: Condition, value: float) -> bool:
    """Return True if a condition holds for a value; for NaN, as the condition defines."""
    if np.isnan(value):
        return condition.if_missing
    above = value > condition.threshold
    return above if condition.above else not above


def describe(manifest: ReleaseManifest, rule: Rule) -> str:
    parts = [_describe_condition(manifest, condition) for condition in rule.conditions]
    met = " and ".join(parts) or "anyone"
    return f"{met}: {rule.probability:.0%} on average ({rule.share:.0%} of people)"


def _describe_condition(manifest: ReleaseManifest, condition: Condition) -> str:
    feature = manifest.features[manifest.find_column(condition.feature)]
    if abs(condition.threshold) >= BEYOND_ALL:
        return f"{feature.label} {'unknown' if condition.if_missing else 'known'}"
    side = "above" if condition.above else "at most"
    missing = " or unknown" if condition.if_missing else ""
    unit = f" {feature.unit}" if feature.unit else ""
    return f"{feature.label} {side} {condition.threshold:.4g}{unit}{missing}"
