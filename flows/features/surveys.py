"""Features of questionnaires answered before a moment (feature view survey_history)."""

from datetime import timedelta

import polars as pl

from feature_repo.instruments import GAD7, ITEM_COLUMNS, OTHER_INSTRUMENTS, PHQ9, Instrument
from feature_repo.stored_views import JOIN_KEY
from feature_repo.survey_history import STORED_PHQ9_ITEMS, survey_history
from flows.features.moments import AS_OF, AVAILABLE_AT, fit_slope, stamp_rows
from flows.sources.clean import add_items

HISTORY_DAYS = 365
#: How long the items of a PHQ-9 speak beside a later total without items.
ITEMS_SPEAK = timedelta(days=14)
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
    for instrument in OTHER_INSTRUMENTS:
        burden = _summarise_burden(earlier, instrument)
        features = features.join(burden, on=MOMENT, how="left")
    return stamp_rows(features)


def add_totals(surveys: pl.DataFrame) -> pl.DataFrame:
    """Fill `total`: the sum of the instrument's items, else the total that was stated, else null.

    Null where an item is missing and no total was stated: no imputation.
    """
    return surveys.with_columns(pl.coalesce(add_items(), pl.col("total")).alias("total"))


def _join_earlier(moments: pl.DataFrame, surveys: pl.DataFrame) -> pl.DataFrame:
    """Pair each moment with the questionnaires answered before it, oldest first."""
    oldest = pl.col(AS_OF) - survey_history.ttl
    return (
        moments.join(surveys, on=JOIN_KEY)
        .filter((pl.col("answered_at") < pl.col(AS_OF)) & (pl.col("answered_at") >= oldest))
        .with_columns((pl.col(AS_OF) - pl.col("answered_at")).dt.total_days().alias("days_ago"))
        .sort(*MOMENT, "answered_at")
    )


def _summarise_last_phq9(phq9: pl.DataFrame) -> pl.DataFrame:
    # A total without items takes no answer away that was given within PHQ-9's two weeks.
    has_items = pl.any_horizontal(pl.col(ITEM_COLUMNS).is_not_null())
    recent = pl.col("answered_at") >= pl.col("answered_at").last() - ITEMS_SPEAK
    stored_items = [
        pl.col(item).filter(has_items & recent).last().alias(stored)
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
    return gad7.group_by(MOMENT, maintain_order=True).agg(
        pl.col("total").last().alias("stored_gad7_total"), *_summarise_year("gad7", pl.col("total"))
    )


def _summarise_burden(earlier: pl.DataFrame, instrument: Instrument) -> pl.DataFrame:
    """Summarise an instrument so that more is worse, whichever way its total runs."""
    asked = earlier.filter(pl.col("instrument") == instrument.name)
    total = pl.col("total")
    burden = total if instrument.higher_is_worse else instrument.max_total - total
    return asked.group_by(MOMENT, maintain_order=True).agg(
        burden.last().alias(f"{instrument.key}_last"), *_summarise_year(instrument.key, burden)
    )


def _summarise_year(name: str, points: pl.Expr) -> list[pl.Expr]:
    in_year = pl.col("days_ago") < HISTORY_DAYS
    slope = fit_slope(-pl.col("days_ago").filter(in_year), points.filter(in_year))
    return [
        points.filter(in_year).mean().alias(f"{name}_mean_365"),
        (slope * 30).alias(f"{name}_slope_365"),
    ]
