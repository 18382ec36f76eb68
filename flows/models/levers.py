"""What a person could change, for the counterfactuals of serving."""

from collections.abc import Iterable

from feature_repo.wearable_windows import (
    CHANGEABLE_CHANNELS,
    WINDOWED_CHANNELS,
    WINDOWS_DAYS,
    name_last,
    name_window,
)
from mlruns_config.manifest import FeatureDescription, Lever

#: The window whose mean is told and whose usual range is tried.
TOLD_WINDOW = 28


def describe_levers(features: Iterable[FeatureDescription]) -> list[Lever]:
    """Return the levers whose usual range is known; each moves all windows of its channel."""
    by_name = {feature.name: feature for feature in features}
    levers = []
    for channel in CHANGEABLE_CHANNELS:
        label, unit = WINDOWED_CHANNELS[channel]
        told = by_name[name_window(channel, "mean", TOLD_WINDOW)]
        if told.usual_low is None or told.usual_high is None:
            continue
        columns = list_columns(channel)
        lever = Lever(
            name=channel,
            label=label,
            unit=unit,
            columns=columns,
            low=told.usual_low,
            high=told.usual_high,
        )
        levers.append(lever)
    return levers


def list_columns(channel: str) -> list[str]:
    """Return the columns that tell a channel's level, the one to tell first."""
    others = [days for days in WINDOWS_DAYS if days != TOLD_WINDOW]
    windows = [name_window(channel, "mean", days) for days in (TOLD_WINDOW, *others)]
    return [*windows, name_last(channel)]
