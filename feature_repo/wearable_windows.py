"""What wearable days before the index date say, over windows of 7, 28 and 60 days."""

from datetime import timedelta

from feature_repo.feast_library import FeatureView, Field, Float32
from feature_repo.individual import individual, make_feature_source

WINDOWS_DAYS = (7, 28, 60)
STATISTICS = ("mean", "sd", "slope", "missing")

#: Channel -> (plain words, unit).
WINDOWED_CHANNELS = {
    "steps": ("daily steps", "steps"),
    "active_minutes": ("active minutes a day", "minutes"),
    "sleep_minutes": ("sleep a night", "minutes"),
    "sleep_efficiency": ("sleep efficiency", "%"),
    "resting_heart_rate": ("resting heart rate", "beats/min"),
    "hrv_rmssd": ("heart rate variability (RMSSD)", "ms"),
}

#: What a person can set out to change; a heart rate is not.
CHANGEABLE_CHANNELS = ("steps", "active_minutes", "sleep_minutes")

_WORDS = {
    "mean": "mean of {label} over {days} days",
    "sd": "day-to-day spread of {label} over {days} days",
    "slope": "trend of {label} over {days} days",
    "missing": "share of {days} days without {label}",
}


def name_window(channel: str, statistic: str, days: int) -> str:
    """Return the feature of one statistic of a channel over a window."""
    return f"{channel}_{statistic}_{days}"


def name_last(channel: str) -> str:
    """Return the feature of a channel's last known day."""
    return f"{channel}_last"


def _describe_window(channel: str, days: int, statistic: str) -> Field:
    label, unit = WINDOWED_CHANNELS[channel]
    units = {"slope": f"{unit} per week", "missing": "share"}
    return Field(
        name=name_window(channel, statistic, days),
        dtype=Float32,
        tags={"unit": units.get(statistic, unit)},
        description=_WORDS[statistic].format(label=label, days=days),
    )


wearable_windows = FeatureView(
    name="wearable_windows",
    entities=[individual],
    ttl=timedelta(days=14),  # older windows say little about current risk
    tags={"data_type": "wearable"},
    schema=[
        *(
            _describe_window(channel, days, statistic)
            for channel in WINDOWED_CHANNELS
            for days in WINDOWS_DAYS
            for statistic in STATISTICS
        ),
        *(
            Field(
                name=name_last(channel),
                dtype=Float32,
                tags={"unit": unit},
                description=f"last {label}",
            )
            for channel, (label, unit) in WINDOWED_CHANNELS.items()
        ),
    ],
    source=make_feature_source("wearable_windows"),
)
