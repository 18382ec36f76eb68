"""The last 26 weeks before a moment, one array per channel (feature view weekly_sequence)."""

import polars as pl

from feature_repo.clinical_codes import PSYCHIATRIC_SETTINGS
from feature_repo.instruments import GAD7, PHQ9
from feature_repo.stored_views import JOIN_KEY
from feature_repo.wearable_windows import WINDOWED_CHANNELS
from feature_repo.weekly_sequence import SEQUENCE_CHANNELS, SEQUENCE_WEEKS
from flows.features.moments import AS_OF, AVAILABLE_AT, stamp_rows
from flows.features.surveys import add_totals
from flows.features.wearables import pair_days

MOMENT = [JOIN_KEY, AS_OF]
WEEK = "week"  # 0 is the oldest, SEQUENCE_WEEKS - 1 ends at the moment


def compute_weekly_sequence(
    moments: pl.DataFrame, surveys: pl.DataFrame, days: pl.DataFrame, events: pl.DataFrame
) -> pl.DataFrame:
    """Return one row per moment with at least one week in which anything is known."""
    channels = [
        _summarise_questionnaire(moments, surveys, PHQ9.name, "phq9"),
        _summarise_questionnaire(moments, surveys, GAD7.name, "gad7"),
        _summarise_days(moments, days),
        _summarise_contacts(moments, events),
    ]
    weeks = (
        pl.concat(channels, how="diagonal")
        .group_by(*MOMENT, WEEK)
        .agg(pl.col(AVAILABLE_AT).max(), pl.col(list(SEQUENCE_CHANNELS)).drop_nulls().first())
    )
    return stamp_rows(_spread_weeks(weeks))


def _spread_weeks(weeks: pl.DataFrame) -> pl.DataFrame:
    """Turn rows per week into one row of arrays per moment, NaN where a week is unknown."""
    moments = weeks.select(MOMENT).unique()
    grid = moments.join(pl.DataFrame({WEEK: range(SEQUENCE_WEEKS)}), how="cross").with_columns(
        pl.col(WEEK).cast(weeks.schema[WEEK])
    )
    full = grid.join(weeks, on=[*MOMENT, WEEK], how="left").sort(*MOMENT, WEEK)
    return full.group_by(MOMENT, maintain_order=True).agg(
        pl.col(AVAILABLE_AT).max(),
        *(
            pl.col(channel).cast(pl.Float32).fill_null(float("nan")).alias(f"weekly_{channel}")
            for channel in SEQUENCE_CHANNELS
        ),
    )


def _summarise_questionnaire(
    moments: pl.DataFrame, surveys: pl.DataFrame, instrument: str, channel: str
) -> pl.DataFrame:
    asked = add_totals(surveys.filter(pl.col("instrument") == instrument)).sort("answered_at")
    paired = _keep_weeks(moments.join(asked, on=JOIN_KEY), pl.col("answered_at"))
    return paired.group_by(*MOMENT, WEEK, maintain_order=True).agg(
        pl.col(AVAILABLE_AT).max(), pl.col("total").last().cast(pl.Float64).alias(channel)
    )


def _summarise_days(moments: pl.DataFrame, days: pl.DataFrame) -> pl.DataFrame:
    paired = pair_days(moments, days, SEQUENCE_WEEKS * 7).with_columns(
        (SEQUENCE_WEEKS - 1 - (pl.col("days_ago") - 1) // 7).alias(WEEK)
    )
    return paired.group_by(*MOMENT, WEEK).agg(
        pl.col(AVAILABLE_AT).max(),
        *(pl.col(channel).mean().cast(pl.Float64) for channel in WINDOWED_CHANNELS),
        pl.len().cast(pl.Float64).alias("worn_days"),
    )


def _summarise_contacts(moments: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    contacts = events.filter(pl.col("setting").is_in(PSYCHIATRIC_SETTINGS))
    paired = _keep_weeks(moments.join(contacts, on=JOIN_KEY), pl.col("started_at"))
    return paired.group_by(*MOMENT, WEEK).agg(
        pl.col(AVAILABLE_AT).max(), pl.len().cast(pl.Float64).alias("psychiatric_encounters")
    )


def _keep_weeks(paired: pl.DataFrame, moment: pl.Expr) -> pl.DataFrame:
    days_ago = (pl.col(AS_OF) - moment).dt.total_days()
    return paired.filter(moment < pl.col(AS_OF), days_ago < SEQUENCE_WEEKS * 7).with_columns(
        (SEQUENCE_WEEKS - 1 - days_ago // 7).alias(WEEK)
    )
