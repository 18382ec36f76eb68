"""Features of questionnaires answered before a moment (feature view survey_history)."""

import polars as pl

from feature_repo.individual import JOIN_KEY
from feature_repo.instruments import GAD7, PHQ9, Instrument
from feature_repo.survey_history import STORED_PHQ9_ITEMS
from flows.features.moments import AS_OF, AVAILABLE_AT, fit_slope, stamp_rows
from flows.sources.contract import ITEM_COLUMNS

HISTORY_DAYS = 365
MOMENT = [JOIN_KEY, AS_OF]


def compute_survey_history(moments: pl.DataFrame, surveys: pl.DataFrame) -> pl.DataFrame:
    """Return one row per moment with at least one earlier questionnaire."""
    earlier = _join_earlier(moments, add_totals(surveys))
    phq9 = earlier.filter(pl.col("instrument") == PHQ9.name)
    gad7 = earlier.filter(pl.col("instrument") == GAD7.name)
    available = earlier.group_by(MOMENT).agg(pl.col(AVAILABLE_AT).max())
    features = (
        available.join(_summarise_last_phq9(phq9), on=MOMENT, how="left")
        .join(_summarise_phq9_year(phq9), on=MOMENT, how="left")
        .join(_summarise_gad7(gad7), on=MOMENT, how="left")
    )
    return stamp_rows(features)


def add_totals(surveys: pl.DataFrame) -> pl.DataFrame:
    """Add `total`: the sum of the instrument's items, null when one is missing."""
    return surveys.with_columns(
        pl.when(pl.col("instrument") == PHQ9.name)
        .then(_sum_items(PHQ9))
        .when(pl.col("instrument") == GAD7.name)
        .then(_sum_items(GAD7))
        .alias("total")
    )


def _sum_items(instrument: Instrument) -> pl.Expr:
    items = [pl.col(name).cast(pl.Int32) for name in ITEM_COLUMNS[: instrument.item_count]]
    return pl.sum_horizontal(items, ignore_nulls=False)


def _join_earlier(moments: pl.DataFrame, surveys: pl.DataFrame) -> pl.DataFrame:
    """Pair each moment with the questionnaires answered before it, oldest first."""
    oldest = pl.col(AS_OF) - pl.duration(days=400)  # the view's time to live
    return (
        moments.join(surveys, on=JOIN_KEY)
        .filter((pl.col("answered_at") < pl.col(AS_OF)) & (pl.col("answered_at") >= oldest))
        .with_columns((pl.col(AS_OF) - pl.col("answered_at")).dt.total_days().alias("days_ago"))
        .sort(*MOMENT, "answered_at")
    )


def _summarise_last_phq9(phq9: pl.DataFrame) -> pl.DataFrame:
    stored_items = [
        pl.col(item).last().alias(stored)
        for item, stored in zip(ITEM_COLUMNS, STORED_PHQ9_ITEMS, strict=True)
    ]
    return phq9.group_by(MOMENT, maintain_order=True).agg(
        *stored_items,
        pl.col("total").last().alias("stored_phq9_total"),
        pl.col("answered_at").last().dt.epoch("d").alias("stored_phq9_at"),
        pl.col("total").get(-2, null_on_oob=True).alias("previous_phq9_total"),
    )


def _summarise_phq9_year(phq9: pl.DataFrame) -> pl.DataFrame:
    year = phq9.filter(pl.col("days_ago") < HISTORY_DAYS)
    return year.group_by(MOMENT).agg(
        pl.col("total").mean().alias("phq9_mean_365"),
        pl.col("total").max().alias("phq9_max_365"),
        pl.col("total").std().alias("phq9_sd_365"),
        (fit_slope(-pl.col("days_ago"), pl.col("total")) * 30).alias("phq9_slope_365"),
        pl.len().alias("phq9_count_365"),
        pl.col("item_9").max().alias("phq9_self_harm_365"),
    )


def _summarise_gad7(gad7: pl.DataFrame) -> pl.DataFrame:
    in_year = pl.col("days_ago") < HISTORY_DAYS
    return gad7.group_by(MOMENT, maintain_order=True).agg(
        pl.col("total").last().alias("stored_gad7_total"),
        pl.col("total").filter(in_year).mean().alias("gad7_mean_365"),
        (
            fit_slope(-pl.col("days_ago").filter(in_year), pl.col("total").filter(in_year)) * 30
        ).alias("gad7_slope_365"),
    )
