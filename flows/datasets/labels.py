"""Labels: which index dates were followed by each of the outcomes (`feature_repo.outcomes`).

Both are derived from the PHQ-9 totals and the acute psychiatric care of the HORIZON_DAYS after
an index date. Follow-up is defined alike for both classes: at least one complete PHQ-9 in that
time. Without follow-up there is no label: not seen is not well, and acute care alone would
label only those who had it. Outcomes adjudicated elsewhere take the place of derived ones.
"""

from datetime import UTC, date, datetime, timedelta

import polars as pl

from feature_repo.clinical_codes import ACUTE_PSYCHIATRIC_SETTINGS
from feature_repo.instruments import PHQ9, PHQ9_CASE_CUTOFF, PHQ9_SIGNIFICANT_CHANGE
from feature_repo.outcomes import ADVERSE_COURSE, HORIZON_DAYS, PHQ9_SEVERE_COURSE, WORSENING
from feature_repo.stored_views import JOIN_KEY
from flows.features.moments import find_end_of_day
from flows.features.surveys import add_totals
from flows.lake.tables import scan_table

INDEX_DATE = "index_date"
#: Columns of labels: the priority's outcome, and the one reported beside it.
LABEL = ADVERSE_COURSE.name
WORSENED = WORSENING.name
#: Where a label comes from: later data, or an adjudication elsewhere.
SOURCE = "source"
OBSERVED, ADJUDICATED = "observed", "adjudicated"
_KEY = [JOIN_KEY, INDEX_DATE]
_ROW = "index_row"


def derive_labels(
    surveys: pl.DataFrame, events: pl.DataFrame, outcomes: pl.DataFrame, known_until: date
) -> pl.DataFrame:
    """Return (anonymized_id, index_date, index_time, LABEL, WORSENED), labelled rows only.

    An index is the first complete PHQ-9 of a day, or the end of a day that an adjudicated outcome
    names and that has no PHQ-9. Events of the index day itself count neither way: their
    order relative to the answers is unknown. `known_until` is the last day the data reach: a
    derived label needs its 90 days to be over, or the last months would hold only early answers.
    """
    answered = list_totals(surveys).unique(_KEY, keep="first", maintain_order=True)
    index = pl.concat([answered, _index_outcomes(outcomes, answered)])
    labelled = label_index(index, surveys, events, outcomes, known_until)
    return labelled.select(*_KEY, pl.col("answered_at").alias("index_time"), LABEL, WORSENED).sort(
        _KEY
    )


def count_unlabelled(
    surveys: pl.DataFrame, labels: pl.DataFrame, known_until: date
) -> tuple[int, int]:
    """Return how many days with a PHQ-9 have no label: horizon not over, no later PHQ-9 in it."""
    days = list_totals(surveys).select(_KEY).unique()
    without = days.join(labels, on=_KEY, how="anti")
    over = without.filter(pl.col(INDEX_DATE) <= known_until - timedelta(days=HORIZON_DAYS)).height
    return without.height - over, over


def _index_outcomes(outcomes: pl.DataFrame, answered: pl.DataFrame) -> pl.DataFrame:
    """Return an index without a PHQ-9 for each adjudicated outcome of a day that has none.

    It lies at the end of the day: what is known up to and including it counts.
    """
    alone = outcomes.select(_KEY).unique().join(answered, on=_KEY, how="anti")
    end = find_end_of_day(pl.col(INDEX_DATE)).cast(answered.schema["answered_at"])
    return alone.select(
        JOIN_KEY,
        end.alias("answered_at"),
        pl.lit(None, dtype=answered.schema["total"]).alias("total"),
        INDEX_DATE,
    )


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
    course = _follow_totals(numbered, list_totals(surveys))
    acute = _find_acute_care(numbered, events)
    adjudicated = outcomes.select(*_KEY, pl.col("outcome").alias("adjudicated"))
    over = pl.col(INDEX_DATE) <= known_until - timedelta(days=HORIZON_DAYS)
    cared = pl.col("acute").fill_null(False)
    named = pl.when(pl.col("adjudicated").is_null()).then(pl.lit(OBSERVED))
    return (
        numbered.join(course, on=_ROW, how="left")
        .join(acute, on=_ROW, how="left")
        .join(adjudicated, on=_KEY, how="left")
        .select(
            *index.columns,
            pl.coalesce("adjudicated", _where(over, pl.col("severe") | cared)).alias(LABEL),
            pl.coalesce("adjudicated", _where(over, pl.col("risen") | cared)).alias(WORSENED),
            named.otherwise(pl.lit(ADJUDICATED)).alias(SOURCE),
        )
        .drop_nulls(LABEL)
    )


def _where(over: pl.Expr, followed: pl.Expr) -> pl.Expr:
    """Return a label where the horizon is over; null where there was no follow-up."""
    return pl.when(over & pl.col("severe").is_not_null()).then(followed)


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


def _follow_totals(index: pl.DataFrame, answered: pl.DataFrame) -> pl.DataFrame:
    """Return, of rows with a later PHQ-9, whether one was severe or a marked rise.

    A rise needs the PHQ-9 of the index date; without it only a severe total counts.
    """
    later = answered.select(
        JOIN_KEY, pl.col(INDEX_DATE).alias("later_date"), pl.col("total").alias("later_total")
    )
    total = pl.col("later_total")
    risen = (total >= PHQ9_CASE_CUTOFF) & (total - pl.col("total") >= PHQ9_SIGNIFICANT_CHANGE)
    risen = risen.fill_null(False)
    return (
        _keep_horizon(index.join(later, on=JOIN_KEY))
        .group_by(_ROW)
        .agg(
            risen.any().alias("risen"),
            (risen | (total >= PHQ9_SEVERE_COURSE)).any().alias("severe"),
        )
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
