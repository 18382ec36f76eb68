"""The outcome to predict: clinically significant deterioration within 90 days.

Positive: within HORIZON_DAYS after the index date a PHQ-9 total of at least 10 that is at
least 5 above the index PHQ-9 (Kroenke 2001), or a psychiatric emergency or inpatient
encounter. Without any follow-up in the window there is no label: not seen is not well.
Outcomes adjudicated elsewhere take the place of the derived label.
"""

from datetime import date, timedelta

import polars as pl

from feature_repo.clinical_codes import ACUTE_PSYCHIATRIC_SETTINGS
from feature_repo.individual import JOIN_KEY
from feature_repo.instruments import PHQ9, PHQ9_CASE_CUTOFF, PHQ9_SIGNIFICANT_CHANGE
from flows.features.surveys import add_totals

HORIZON_DAYS = 90
INDEX_DATE = "index_date"
LABEL = "deteriorated"
_KEY = [JOIN_KEY, INDEX_DATE]


def derive_labels(
    surveys: pl.DataFrame, events: pl.DataFrame, outcomes: pl.DataFrame, known_until: date
) -> pl.DataFrame:
    """Return (anonymized_id, index_date, index_time, deteriorated), labelled rows only.

    An index is the first complete PHQ-9 of a day. Events of the index day itself count
    neither way: nobody can tell whether they came before the answers. `known_until` is the
    last day the data reach: a derived label needs its 90 days to be over, or the last months
    would hold only early answers.
    """
    totals = add_totals(surveys.filter(pl.col("instrument") == PHQ9.name)).drop_nulls("total")
    answered = totals.select(
        JOIN_KEY, "answered_at", "total", pl.col("answered_at").dt.date().alias(INDEX_DATE)
    ).sort(JOIN_KEY, "answered_at")
    index = answered.unique(_KEY, keep="first", maintain_order=True)
    worsened = _find_worsening(index, answered)
    acute = _find_acute_care(index, events)
    adjudicated = outcomes.select(*_KEY, pl.col("outcome").alias("adjudicated"))
    over = pl.col(INDEX_DATE) <= known_until - timedelta(days=HORIZON_DAYS)
    derived = pl.when("acute").then(True).otherwise(pl.col("worsened"))
    label = pl.coalesce("adjudicated", pl.when(over).then(derived))
    return (
        index.join(worsened, on=_KEY, how="left")
        .join(acute, on=_KEY, how="left")
        .join(adjudicated, on=_KEY, how="left")
        .select(*_KEY, pl.col("answered_at").alias("index_time"), label.alias(LABEL))
        .drop_nulls(LABEL)
        .sort(_KEY)
    )


def _find_worsening(index: pl.DataFrame, answered: pl.DataFrame) -> pl.DataFrame:
    later = answered.select(
        JOIN_KEY, pl.col(INDEX_DATE).alias("later_date"), pl.col("total").alias("later_total")
    )
    worse = (pl.col("later_total") >= PHQ9_CASE_CUTOFF) & (
        pl.col("later_total") - pl.col("total") >= PHQ9_SIGNIFICANT_CHANGE
    )
    return (
        _keep_horizon(index.join(later, on=JOIN_KEY))
        .group_by(_KEY)
        .agg(worse.any().alias("worsened"))
    )


def _find_acute_care(index: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    acute = events.filter(
        (pl.col("kind") == "encounter") & pl.col("setting").is_in(ACUTE_PSYCHIATRIC_SETTINGS)
    ).select(JOIN_KEY, pl.col("started_at").dt.date().alias("later_date"))
    return (
        _keep_horizon(index.join(acute, on=JOIN_KEY))
        .group_by(_KEY)
        .agg(pl.lit(True).alias("acute"))
    )


def _keep_horizon(pairs: pl.DataFrame) -> pl.DataFrame:
    days_later = (pl.col("later_date") - pl.col(INDEX_DATE)).dt.total_days()
    return pairs.filter(days_later.is_between(1, HORIZON_DAYS))
