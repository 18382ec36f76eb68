"""The moments at which features are computed, and the stamps their rows carry."""

from datetime import UTC, date, datetime

import polars as pl

from feature_repo.feature_tables import CREATED_TIMESTAMP, EVENT_TIMESTAMP
from feature_repo.instruments import PHQ9
from feature_repo.stored_views import JOIN_KEY
from flows.sources.contract import INSTANT

AS_OF = "as_of"
#: When the newest input of a row could first have been known.
AVAILABLE_AT = "available_at"


def list_moments(
    surveys: pl.DataFrame,
    individuals: pl.Series,
    snapshot: date,
    outcomes: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Return (anonymized_id, as_of): the moments of index dates, and `snapshot` for everyone.

    The snapshot is what the online store serves. A PHQ-9 is an index date at the start of its
    day; an adjudicated outcome is one at the end of its day, so that this day's data count.
    """
    asked = surveys.filter(pl.col("instrument") == PHQ9.name).select(
        JOIN_KEY, pl.col("answered_at").dt.truncate("1d").alias(AS_OF)
    )
    named = _list_ends_of_days(surveys.clear() if outcomes is None else outcomes)
    today = pl.DataFrame({JOIN_KEY: individuals}).with_columns(
        pl.lit(snapshot).cast(INSTANT).alias(AS_OF)
    )
    return (
        pl.concat([asked.cast({AS_OF: INSTANT}), named, today])
        .filter(pl.col(AS_OF) <= pl.lit(snapshot).cast(INSTANT))
        .unique()
        .sort(JOIN_KEY, AS_OF)
    )


def find_midnight(day: date) -> datetime:
    """Return the instant at which a day (UTC) begins."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _list_ends_of_days(outcomes: pl.DataFrame) -> pl.DataFrame:
    if outcomes.is_empty():
        return pl.DataFrame(schema={JOIN_KEY: pl.String, AS_OF: INSTANT})
    return outcomes.select(JOIN_KEY, find_end_of_day(pl.col("index_date")).alias(AS_OF))


def find_end_of_day(day: pl.Expr) -> pl.Expr:
    """Return the instant at which a day (UTC) is over: the start of the next one."""
    return (day + pl.duration(days=1)).cast(INSTANT)


def stamp_rows(features: pl.DataFrame) -> pl.DataFrame:
    """Replace (as_of, available_at) by Feast's event and created timestamps.

    A row counts as created when the last of its inputs could be known, and not before the
    moment it stands for: a late correction makes a second row instead of changing the past.
    """
    created = pl.max_horizontal(AS_OF, pl.col(AVAILABLE_AT).fill_null(pl.col(AS_OF)))
    return (
        features.with_columns(created.alias(CREATED_TIMESTAMP))
        .rename({AS_OF: EVENT_TIMESTAMP})
        .drop(AVAILABLE_AT)
    )


def fit_slope(x: pl.Expr, y: pl.Expr) -> pl.Expr:
    """Return the least-squares slope of y over x, null where x does not vary."""
    is_complete = x.is_not_null() & y.is_not_null()
    x, y = x.filter(is_complete).cast(pl.Float64), y.filter(is_complete).cast(pl.Float64)
    variance = ((x - x.mean()) ** 2).sum()
    return pl.when(variance > 0).then(((x - x.mean()) * (y - y.mean())).sum() / variance)
