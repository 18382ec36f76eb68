"""The Delta tables behind the feature views: one partition per hash bucket, versions kept."""

from collections.abc import Collection
from datetime import date, datetime, timedelta

import polars as pl
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError
from polars.datatypes import DataTypeClass
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random

from feature_repo.feast_library import Array, FeatureView, Field, String
from feature_repo.feature_tables import CREATED_TIMESTAMP, EVENT_TIMESTAMP, locate_feature_table
from feature_repo.stored_views import JOIN_KEY
from flows.features.moments import find_midnight
from flows.lake.spans import EVERYBODY, Span
from flows.lake.tables import create_at, storage_options
from flows.sources.contract import INSTANT, ColumnTypes

ROW_KEY = [JOIN_KEY, EVENT_TIMESTAMP, CREATED_TIMESTAMP]
BUCKET = "bucket"
#: Days for which the rows of past nights stay. ADR 86.
NIGHTS_KEPT = 7


def list_columns(view: FeatureView) -> ColumnTypes:
    """Return the columns of a view's table, in order, as its Feast schema declares them."""
    features: ColumnTypes = {field.name: _choose_type(field) for field in view.features}
    keys: ColumnTypes = {JOIN_KEY: pl.String, EVENT_TIMESTAMP: INSTANT, CREATED_TIMESTAMP: INSTANT}
    return keys | features | {BUCKET: pl.Int32}


def _choose_type(field: Field) -> DataTypeClass | pl.DataType:
    if isinstance(field.dtype, Array):
        return pl.List(pl.Float32)
    return pl.String if field.dtype == String else pl.Float32


def ensure_table(view: FeatureView, lake_url: str | None = None) -> None:
    """Create a view's table, or add the features that it lacks: Feast reads every declared column.

    An added feature is null in the rows that are there; the next night computes it.
    `lake_url` is the lake that the table belongs to; None: LAKE_URL.
    """
    create_at(locate_feature_table(view.name, lake_url), list_columns(view), [BUCKET])


# Buckets are disjoint partitions, but two commits at the same instant still collide once.
@retry(
    retry=retry_if_exception_type(CommitFailedError),
    stop=stop_after_attempt(5),
    wait=wait_random(0.1, 1),
    reraise=True,
)
def merge_rows(
    view: FeatureView,
    bucket: int,
    rows: pl.DataFrame,
    span: Span = EVERYBODY,
    moment: datetime | None = None,
    lake_url: str | None = None,
    past: pl.Expr | None = None,
) -> int:
    """Write the rows of one bucket, or of a span of it; return how many are new or changed.

    Rows of other (event, created) timestamps stay: they are what was known before. With `moment`,
    rows of it go that stand on records which have been taken back since. Rows for which `past`
    holds go unless `rows` has their individual and event. `lake_url` is the lake that the table
    belongs to; None: LAKE_URL.
    """
    columns = list_columns(view)
    rows = rows.with_columns(pl.lit(bucket).alias(BUCKET)).select(
        pl.col(name).cast(dtype) for name, dtype in columns.items()
    )
    table = _open(view, lake_url)
    existing = _collect(view, _scan(table, bucket).filter(span.holds()))
    changed = rows.join(existing, on=list(columns), how="anti", nulls_equal=True)
    stale = pl.concat([_find_stale(existing, rows, moment), _find_past(existing, rows, past)])
    if changed.is_empty() and stale.is_empty():
        return 0
    kept = existing.join(changed, on=ROW_KEY, how="anti").join(stale, on=ROW_KEY, how="anti")
    write_deltalake(
        table,
        pl.concat([kept, changed]).sort(ROW_KEY).to_arrow(),
        mode="overwrite",
        # A column that the view has no more is null from now on.
        schema_mode="merge",
        predicate=_write_predicate(bucket, span),
        partition_by=[BUCKET],
    )
    return changed.height


def _find_stale(
    existing: pl.DataFrame, rows: pl.DataFrame, moment: datetime | None
) -> pl.DataFrame:
    """Return the keys of rows of a moment that it gives no more, or gives as created earlier."""
    if moment is None:
        return existing.clear().select(ROW_KEY)
    now = rows.filter(pl.col(EVENT_TIMESTAMP) == moment).select(
        JOIN_KEY, pl.col(CREATED_TIMESTAMP).alias("created_now")
    )
    then = existing.filter(pl.col(EVENT_TIMESTAMP) == moment).join(now, on=JOIN_KEY, how="left")
    is_gone = pl.col("created_now").is_null() | (pl.col(CREATED_TIMESTAMP) > pl.col("created_now"))
    return then.filter(is_gone).select(ROW_KEY)


def _find_past(existing: pl.DataFrame, rows: pl.DataFrame, past: pl.Expr | None) -> pl.DataFrame:
    gone = existing.filter(pl.lit(False) if past is None else past)
    return gone.join(rows, on=[JOIN_KEY, EVENT_TIMESTAMP], how="anti").select(ROW_KEY)


def hold_past_nights(snapshot: date, filled: Collection[date]) -> pl.Expr:
    """Return the condition that a row is of a night before the last NIGHTS_KEPT.

    Days in `filled` were computed on purpose by a backfill: their rows stay.
    """
    first = find_midnight(snapshot - timedelta(days=NIGHTS_KEPT))
    event, kept = pl.col(EVENT_TIMESTAMP), [find_midnight(day) for day in filled]
    return (event < first) & ~event.is_in(pl.Series(kept, dtype=INSTANT).implode())


def _write_predicate(bucket: int, span: Span) -> str:
    whole = f"{BUCKET} = {bucket}"
    if span == EVERYBODY:
        return whole
    return f"{whole} AND {JOIN_KEY} >= '{span.first}' AND {JOIN_KEY} < '{span.beyond}'"


def scan_bucket(view: FeatureView, bucket: int, lake_url: str | None = None) -> pl.LazyFrame:
    """Return the rows of one bucket, of every version, as the table is now.

    Opening a table reads what its log says of all files of all buckets: whoever goes through a
    bucket by spans opens it once.
    """
    return _scan(_open(view, lake_url), bucket)


def _scan(table: DeltaTable, bucket: int) -> pl.LazyFrame:
    return pl.scan_delta(table).filter(pl.col(BUCKET) == bucket)


def read_bucket(
    view: FeatureView, bucket: int, span: Span = EVERYBODY, lake_url: str | None = None
) -> pl.DataFrame:
    """Return the rows of one bucket, or of a span of it; every version."""
    return _collect(view, scan_bucket(view, bucket, lake_url).filter(span.holds()))


def read_latest(
    view: FeatureView, rows: pl.LazyFrame, span: Span, moment: datetime
) -> pl.DataFrame:
    """Return what stands for a moment: of several rows of an individual the one created last."""
    told = _collect(view, rows.filter(span.holds(), pl.col(EVENT_TIMESTAMP) == moment))
    latest = told.sort(JOIN_KEY, CREATED_TIMESTAMP)
    return latest.unique(JOIN_KEY, keep="last", maintain_order=True)


def _collect(view: FeatureView, rows: pl.LazyFrame) -> pl.DataFrame:
    return rows.select(list(list_columns(view))).collect()


def get_table_version(view: FeatureView) -> int:
    return _open(view).version()


def _open(view: FeatureView, lake_url: str | None = None) -> DeltaTable:
    location = locate_feature_table(view.name, lake_url)
    return DeltaTable(location, storage_options=storage_options())
