"""Windows over wearable days before a moment (feature view wearable_windows)."""

import polars as pl

from feature_repo.stored_views import JOIN_KEY
from feature_repo.wearable_windows import WINDOWED_CHANNELS, WINDOWS_DAYS
from flows.features.moments import AS_OF, AVAILABLE_AT, fit_slope, stamp_rows

MOMENT = [JOIN_KEY, AS_OF]
DAYS_PER_WEEK = 7


def compute_wearable_windows(moments: pl.DataFrame, days: pl.DataFrame) -> pl.DataFrame:
    """Return one row per moment with at least one worn day in the longest window."""
    paired = pair_days(moments, days, max(WINDOWS_DAYS))
    statistics = [
        expression
        for channel in WINDOWED_CHANNELS
        for window in WINDOWS_DAYS
        for expression in _summarise_window(channel, window)
    ]
    last = [
        pl.col(channel).drop_nulls().last().alias(f"{channel}_last")
        for channel in WINDOWED_CHANNELS
    ]
    features = paired.group_by(MOMENT, maintain_order=True).agg(
        pl.col(AVAILABLE_AT).max(), *statistics, *last
    )
    return stamp_rows(features)


def pair_days(moments: pl.DataFrame, days: pl.DataFrame, longest: int) -> pl.DataFrame:
    """Pair each moment with the worn days of the `longest` days before it, oldest first.

    `days_ago` is 1 for the day before the moment. A day on which the device lay on a table is
    missing, whatever zeros it counted; where no wear time is known, a day counts as worn.
    """
    days = days.filter(pl.col("wear_minutes").is_null() | (pl.col("wear_minutes") > 0))
    dated = moments.with_columns(pl.col(AS_OF).dt.date().alias("today"))
    asked = dated.join(days, on=JOIN_KEY).with_columns(
        (pl.col("today") - pl.col("date")).dt.total_days().alias("days_ago")
    )
    return asked.filter(pl.col("days_ago").is_between(1, longest)).sort(*MOMENT, "date")


def _summarise_window(channel: str, window: int) -> list[pl.Expr]:
    inside = pl.col("days_ago") <= window
    values = pl.col(channel).filter(inside)
    slope = fit_slope(-pl.col("days_ago").filter(inside), values) * DAYS_PER_WEEK
    return [
        values.mean().alias(f"{channel}_mean_{window}"),
        values.std().alias(f"{channel}_sd_{window}"),
        slope.alias(f"{channel}_slope_{window}"),
        (1 - values.count() / window).alias(f"{channel}_missing_{window}"),
    ]
