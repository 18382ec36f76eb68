"""What would have to be different for a lower estimate: only what a person can change.

Each lever of the release (daily steps, sleep, ...) is tried at values between the bounds seen
in training, first alone, then the best one together with each other: two batches through the
scoring graph. It shows the release's answer, not what would happen.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from mlruns_config.manifest import Lever, ReleaseManifest
from mlruns_config.missing import NOTHING
from serving.scoring.doubts import Estimate
from serving.scoring.estimate import Inputs, estimate_probabilities, map_to_score
from serving.scoring.loaded_release import Release
from serving.scoring.parts import ChangePart, CounterfactualPart

#: Values tried of each lever.
STEPS = 5
#: A smaller gain in probability is not shown.
MIN_GAIN = 0.01
#: Weeks of a sequence that a change of habits of two months would reach.
CHANGED_WEEKS = 8

Setting = Mapping[str, float]


def find_counterfactuals(
    release: Release, inputs: Inputs, estimate: Estimate, pattern: str = NOTHING
) -> list[CounterfactualPart]:
    """Return up to two ways to a lower estimate, the smallest change first.

    None for a score in the lowest band, and none that gains less than MIN_GAIN.
    """
    manifest = release.manifest
    levers = list_known_levers(manifest, inputs)
    if not levers or estimate.score <= manifest.score_map.scores[1]:
        return []
    counterfactuals: list[CounterfactualPart] = []
    best: Setting = {}
    reached = estimate.probability
    for _ in range(2):
        settings = list(extend_setting(best, levers.values()))
        if not settings:
            break
        probabilities = try_settings(release, inputs, levers, settings, pattern)
        chosen = int(np.argmin(probabilities))
        if reached - probabilities[chosen] < MIN_GAIN:
            break
        best, reached = settings[chosen], float(probabilities[chosen])
        counterfactuals.append(describe(manifest, inputs, levers, best, reached))
    return counterfactuals


def list_known_levers(manifest: ReleaseManifest, inputs: Inputs) -> dict[str, Lever]:
    """Return the levers whose present value is known."""
    return {
        lever.name: lever
        for lever in manifest.levers
        if not np.isnan(read_lever(manifest, inputs, lever))
    }


def read_lever(manifest: ReleaseManifest, inputs: Inputs, lever: Lever) -> float:
    return float(inputs.vector[0, manifest.find_column(lever.columns[0])])


def extend_setting(base: Setting, levers: Iterable[Lever]) -> Iterable[Setting]:
    """Yield `base` with each lever that it does not move at each of its values."""
    for lever in levers:
        if lever.name not in base:
            for step in range(STEPS):
                value = lever.low + (lever.high - lever.low) * step / (STEPS - 1)
                yield {**base, lever.name: value}


def try_settings(
    release: Release,
    inputs: Inputs,
    levers: Mapping[str, Lever],
    settings: list[Setting],
    pattern: str,
) -> NDArray[np.float64]:
    """Return the release's probability for the individual under each setting.

    Float64 [settings].
    """
    weighed = [release.members[name] for name in release.manifest.stacker.coefficients]
    if all(member.pin.input == "features" for member in weighed):
        inputs = Inputs(inputs.vector)  # the weeks are not needed
    changed = change_inputs(release.manifest, inputs, levers, settings)
    tried: dict[str, NDArray[np.float64]] = {}
    for member in weighed:
        tried[member.pin.name] = member.predict_many(changed).astype(np.float64)
    return estimate_probabilities(release.manifest, tried, pattern)


def change_inputs(
    manifest: ReleaseManifest, inputs: Inputs, levers: Mapping[str, Lever], settings: list[Setting]
) -> Inputs:
    """Return one row of inputs for each setting."""
    vectors = np.repeat(inputs.vector, len(settings), axis=0)
    weeks = None
    if inputs.sequence is not None:
        weeks = np.repeat(inputs.sequence, len(settings), axis=0)
    for name, lever in levers.items():
        rows = [row for row, setting in enumerate(settings) if name in setting]
        values = np.array([settings[row][name] for row in rows], dtype=np.float32)[:, None]
        columns = [manifest.find_column(column) for column in lever.columns]
        vectors[np.ix_(rows, columns)] = values
        if weeks is not None and (channel := manifest.find_channel(name)) is not None:
            weeks[rows, -CHANGED_WEEKS:, channel] = values
    return Inputs(vectors, weeks)


def describe(
    manifest: ReleaseManifest,
    inputs: Inputs,
    levers: Mapping[str, Lever],
    setting: Setting,
    probability: float,
) -> CounterfactualPart:
    changes = [
        ChangePart(
            label=levers[name].label,
            unit=levers[name].unit,
            value=round(value, 1),
            instead_of=round(read_lever(manifest, inputs, levers[name]), 1),
        )
        for name, value in setting.items()
    ]
    parts = [
        f"{change.label} {change.value:g} {change.unit} (not {change.instead_of:g})"
        for change in changes
    ]
    return CounterfactualPart(
        changes=changes,
        probability=probability,
        risk_score=map_to_score(manifest.score_map, probability),
        text=f"With {' and '.join(parts)} the estimate would be {probability:.0%}: a "
        "sensitivity of the estimate, not advice.",
    )
