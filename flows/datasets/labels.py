"""The outcome to predict: clinically significant deterioration within 90 days.

Positive: within HORIZON_DAYS after the index date a PHQ-9 total of at least 10 that is at
least 5 above the index PHQ-9 (Kroenke 2001), or a psychiatric emergency or inpatient
encounter. Without any follow-up in the window there is no label: not seen is not well.
Outcomes adjudicated elsewhere take the place of the derived label.
"""

from datetime import UTC, date, datetime, timedelta

import polars as pl

from feature_repo.clinical_codes import ACUTE_PSYCHIATRIC_SETTINGS
from feature_repo.individual import JOIN_KEY
from feature_repo.instruments import PHQ9, PHQ9_CASE_CUTOFF, PHQ9_SIGNIFICANT_CHANGE
from flows.features.surveys import add_totals
from flows.lake.tables import scan_table

HORIZON_DAYS = 90
INDEX_DATE = "index_date"
LABEL = "deteriorated"
#: Where a label comes from: later data, or whoever adjudicated it elsewhere.
SOURCE = "source"
OBSERVED, ADJUDICATED = "observed", "adjudicated"
_KEY = [JOIN_KEY, INDEX_DATE]
_ROW = "index_row"


def derive_labels(
    surveys: pl.DataFrame, events: pl.DataFrame, outcomes: pl.DataFrame, known_until: date
) -> pl.DataFrame:
    """Return (anonymized_id, index_date, index_time, deteriorated), labelled rows only.

    An index is the first complete PHQ-9 of a day. Events of the index day itself count
    neither way: nobody can tell whether they came before the answers. `known_until` is the
    last day the data reach: a derived label needs its 90 days to be over, or the last months
    would hold only early answers.
    """
    index = list_totals(surveys).unique(_KEY, keep="first", maintain_order=True)
    labelled = label_index(index, surveys, events, outcomes, known_until)
    return labelled.select(*_KEY, pl.col("answered_at").alias("index_time"), LABEL).sort(_KEY)


def label_index(
    index: pl.DataFrame,
    surveys: pl.DataFrame,
    events: pl.DataFrame,
    outcomes: pl.DataFrame,
    known_until: date,
) -> pl.DataFrame:
    """Return the rows of `index` that have a label, with it and its SOURCE.

    `index` has anonymized_id, index_date and `total`, the PHQ-9 known then (null: none was);
    a row of it may repeat the date of another.
    """
    numbered = index.with_row_index(_ROW)
    worsened = _find_worsening(numbered, list_totals(surveys))
    acute = _find_acute_care(numbered, events)
    adjudicated = outcomes.select(*_KEY, pl.col("outcome").alias("adjudicated"))
    over = pl.col(INDEX_DATE) <= known_until - timedelta(days=HORIZON_DAYS)
    derived = pl.when("acute").then(True).otherwise(pl.col("worsened"))
    named = pl.when(pl.col("adjudicated").is_null()).then(pl.lit(OBSERVED))
    return (
        numbered.join(worsened, on=_ROW, how="left")
        .join(acute, on=_ROW, how="left")
        .join(adjudicated, on=_KEY, how="left")
        .select(
            *index.columns,
            pl.coalesce("adjudicated", pl.when(over).then(derived)).alias(LABEL),
            named.otherwise(pl.lit(ADJUDICATED)).alias(SOURCE),
        )
        .drop_nulls(LABEL)
    )


def list_totals(surveys: pl.DataFrame) -> pl.DataFrame:
    """Return (anonymized_id, answered_at, total, index_date) of every complete PHQ-9, in order."""
    totals = add_totals(surveys.filter(pl.col("instrument") == PHQ9.name)).drop_nulls("total")
    return totals.select(
        JOIN_KEY, "answered_at", "total", pl.col("answered_at").dt.date().alias(INDEX_DATE)
    ).sort(JOIN_KEY, "answered_at")


def find_last_day(lake_url: str) -> date:
    """Return the last day the landed data reach; today where there are none."""
    last = scan_table(lake_url, "surveys").select(pl.col("answered_at").max()).collect().item()
    return last.date() if last else datetime.now(UTC).date()


def _find_worsening(index: pl.DataFrame, answered: pl.DataFrame) -> pl.DataFrame:
    later = answered.select(
        JOIN_KEY, pl.col(INDEX_DATE).alias("later_date"), pl.col("total").alias("later_total")
    )
    worse = (pl.col("later_total") >= PHQ9_CASE_CUTOFF) & (
        pl.col("later_total") - pl.col("total") >= PHQ9_SIGNIFICANT_CHANGE
    )
    return (
        _keep_horizon(index.drop_nulls("total").join(later, on=JOIN_KEY))
        .group_by(_ROW)
        .agg(worse.any().alias("worsened"))
    )


def _find_acute_care(index: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    acute = events.filter(
        (pl.col("kind") == "encounter") & pl.col("setting").is_in(ACUTE_PSYCHIATRIC_SETTINGS)
    ).select(JOIN_KEY, pl.col("started_at").dt.date().alias("later_date"))
    return (
        _keep_horizon(index.join(acute, on=JOIN_KEY))
        .group_by(_ROW)
        .agg(pl.lit(True).alias("acute"))
    )


def _keep_horizon(pairs: pl.DataFrame) -> pl.DataFrame:
    days_later = (pl.col("later_date") - pl.col(INDEX_DATE)).dt.total_days()
    return pairs.filter(days_later.is_between(1, HORIZON_DAYS))
