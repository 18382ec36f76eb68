"""The last 26 weeks as one array per channel, oldest week first, NaN where nothing is known."""

from datetime import timedelta

from feature_repo.feast_library import Array, FeatureView, Field, Float32
from feature_repo.individual import individual, make_feature_source
from feature_repo.stored_views import SEQUENCE_WEEKS
from feature_repo.wearable_windows import WINDOWED_CHANNELS

__all__ = ["SEQUENCE_CHANNELS", "SEQUENCE_WEEKS", "weekly_sequence"]

#: Channel -> (plain words, unit, data type); wearables are weekly means, questionnaires the
#: week's last total.
SEQUENCE_CHANNELS = {
    "phq9": ("PHQ-9 total of each week", "points", "survey"),
    "gad7": ("GAD-7 total of each week", "points", "survey"),
    **{
        channel: (f"{label}, weekly mean", unit, "wearable")
        for channel, (label, unit) in WINDOWED_CHANNELS.items()
    },
    "worn_days": ("days with wearable data in each week", "days", "wearable"),
    "psychiatric_encounters": ("psychiatric encounters of each week", "count", "emr"),
}

weekly_sequence = FeatureView(
    name="weekly_sequence",
    entities=[individual],
    ttl=timedelta(days=14),
    schema=[
        Field(
            name=f"weekly_{channel}",
            dtype=Array(Float32),
            tags={"unit": unit, "data_type": data_type},
            description=label,
        )
        for channel, (label, unit, data_type) in SEQUENCE_CHANNELS.items()
    ],
    source=make_feature_source("weekly_sequence"),
)
