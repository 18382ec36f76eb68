"""The outcome flow: outcomes of the individuals that a release has screened.

Two kinds of label are joined to the predictions they belong to. An outcome is observed in data
that landed since, by the definition that training uses, or adjudicated elsewhere; it is learnt
from and measured by. A review is a clinician's word and no outcome: who was called back may be
well because of it. ADR 0024.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from typing import Any

import polars as pl
from prefect import flow, get_run_logger, task
from prefect.artifacts import (
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from sqlalchemy import Engine, func, select
from sqlalchemy.dialects.postgresql import insert

from feature_repo.pseudonyms import BUCKET_COUNT
from feature_repo.stored_views import JOIN_KEY
from flows.datasets.labels import (
    ADJUDICATED,
    INDEX_DATE,
    LABEL,
    SOURCE,
    WORSENED,
    find_last_day,
    label_index,
)
from flows.datasets.screenings import REVIEW, find_index_date, index_day
from flows.lake.consents import is_in_bucket, keep_consented, read_consented_types
from flows.lake.spans import Span, list_spans
from flows.lake.tables import scan_table
from flows.runtime.buckets import run_buckets
from flows.runtime.counts import Counts
from flows.runtime.database import open_database
from flows.runtime.notifications import NOTIFICATION_HOOKS
from flows.runtime.retries import IO_RETRIES
from flows.sources.contract import TABLES, ColumnTypes
from serving.database.json_numbers import read_number
from serving.database.sessions import open_session
from serving.database.tables import Prediction, PredictionLabel
from serving.reviews.labels import ReviewLabel, read_review_labels
from serving.settings import get_settings

#: Tables that labels are derived from.
FOLLOW_UP = ("surveys", "emr_events", "outcomes")
#: Predictions looked at: later than this nothing is expected to land any more.
LOOK_BACK_DAYS = 400
ROWS_PER_STATEMENT = 2_000

ASKED: ColumnTypes = {
    "prediction_id": pl.String,
    JOIN_KEY: pl.String,
    INDEX_DATE: pl.Date,
    "total": pl.Float64,
}


@dataclass(frozen=True)
class LabelCounts(Counts):
    """Predictions looked at, those with an outcome, and labels that are new or changed."""

    predictions: int = 0
    labelled: int = 0
    adverse_courses: int = 0
    worsenings: int = 0
    adjudicated: int = 0
    new_or_changed: int = 0


@flow(name="outcomes", timeout_seconds=6 * 3600, **NOTIFICATION_HOOKS)
def collect_outcomes(look_back_days: int = LOOK_BACK_DAYS) -> LabelCounts:
    """Join outcomes and review decisions to the predictions they belong to.

    Started again it changes only what later data have changed.

    Args:
        look_back_days: Age in days up to which predictions are looked at. An outcome needs 90 days
            of follow-up, and data may land late.
    """
    reviews = collect_reviews()
    progress: Any = create_progress_artifact(0.0, key="outcome-progress")
    since = datetime.now(UTC) - timedelta(days=look_back_days)
    last_day = find_last_day(get_settings().lake_url)
    counts = LabelCounts()
    all_counts = run_buckets(label_bucket, range(BUCKET_COUNT), since=since, known_until=last_day)
    for done, bucket_counts in enumerate(all_counts, 1):
        counts += bucket_counts
        update_progress_artifact(progress, 100 * done / BUCKET_COUNT)
    table = asdict(counts) | {"new_reviews": reviews, "data_until": str(last_day)}
    create_table_artifact([table], key="outcomes", description="Labels of predictions")
    get_run_logger().info("%s, %d new reviews", counts, reviews)
    return counts


@task(cache_policy=NO_CACHE, task_run_name="label-bucket-{bucket}", **IO_RETRIES)
def label_bucket(bucket: int, since: datetime, known_until: date) -> LabelCounts:
    """Label the predictions about one bucket of individuals, a span of them at a time."""
    settings = get_settings()
    counts = LabelCounts()
    with open_database() as engine:
        consented = read_consented_types(engine, bucket=bucket)
        landed = {name: scan_table(settings.lake_url, name, bucket) for name in FOLLOW_UP}
        for span in list_spans(settings.lake_url, bucket):
            asked = read_predictions(engine, bucket, span, since)
            tables = read_follow_up(landed, span, consented)
            surveys, events, adjudicated = tables
            labelled = label_index(asked, surveys, events, adjudicated, known_until)
            changed = store_outcomes(engine, labelled)
            counts += count_labels(asked.height, labelled, changed)
    return counts


def read_predictions(engine: Engine, bucket: int, span: Span, since: datetime) -> pl.DataFrame:
    """Return the predictions of a release about a span of individuals, with their index dates.

    The index date is the day that the answers are of; `total` the PHQ-9 that the release saw.
    """
    total = read_number(Prediction.inputs["features"]["phq9_total"])
    statement = select(
        Prediction.id, Prediction.anonymized_id, Prediction.created_at, index_day(), total
    ).where(
        Prediction.created_at >= since,
        Prediction.probability.is_not(None),
        Prediction.anonymized_id >= span.first,
        Prediction.anonymized_id < span.beyond,
        is_in_bucket(Prediction.anonymized_id, bucket),
    )
    with open_session(engine) as session:
        rows = [
            (str(number), person, find_index_date(created_at, day), total_seen)
            for number, person, created_at, day, total_seen in session.execute(statement)
        ]
    return pl.DataFrame(rows, schema=ASKED, orient="row")


def read_follow_up(
    landed: Mapping[str, pl.LazyFrame], span: Span, consented: pl.DataFrame
) -> tuple[pl.DataFrame, ...]:
    """Return the landed rows of a span, by table, of those who consent to their use now."""
    return tuple(
        keep_consented(rows.filter(span.holds()).collect(), TABLES[name].data_type, consented)
        for name, rows in landed.items()
    )


def store_outcomes(engine: Engine, labelled: pl.DataFrame) -> int:
    """Store the labels of predictions; return how many are new or changed."""
    now = datetime.now(UTC)
    rows = (
        {
            "prediction_id": row["prediction_id"],
            "kind": kind,
            "anonymized_id": row[JOIN_KEY],
            "source": row[SOURCE],
            "occurred": row[kind],
            "settled_at": now,
        }
        for row in labelled.iter_rows(named=True)
        for kind in (LABEL, WORSENED)
    )
    return upsert_labels(engine, rows)


def upsert_labels(engine: Engine, rows: Iterator[Mapping[str, Any]]) -> int:
    """Write labels of predictions that are still there; return how many are new or changed."""
    written = 0
    while part := list(islice(rows, ROWS_PER_STATEMENT)):
        with open_session(engine) as session:
            numbers = [row["prediction_id"] for row in part]
            held = select(Prediction.id).where(Prediction.id.in_(numbers))
            existing = {
                str(prediction_id)
                for prediction_id in session.scalars(held.with_for_update(key_share=True))
            }
            kept = [row for row in part if str(row["prediction_id"]) in existing]
            written += len(list(session.scalars(_write_upsert(kept)))) if kept else 0
    return written


def _write_upsert(rows: Sequence[Mapping[str, Any]]) -> Any:
    statement = insert(PredictionLabel).values(list(rows))
    new = statement.excluded
    columns = ("occurred", "source", "reviewed_band", "reason_code")
    stored_row = func.row(*(getattr(PredictionLabel, name) for name in columns))
    return statement.on_conflict_do_update(
        index_elements=[PredictionLabel.prediction_id, PredictionLabel.kind],
        set_={name: new[name] for name in (*columns, "settled_at")},
        where=stored_row.is_distinct_from(func.row(*(new[name] for name in columns))),
    ).returning(PredictionLabel.prediction_id)


def count_labels(predictions: int, labelled: pl.DataFrame, changed: int) -> LabelCounts:
    return LabelCounts(
        predictions=predictions,
        labelled=labelled.height,
        adverse_courses=int(labelled[LABEL].sum() or 0),
        worsenings=int(labelled[WORSENED].sum() or 0),
        adjudicated=labelled.filter(pl.col(SOURCE) == ADJUDICATED).height,
        new_or_changed=changed,
    )


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def collect_reviews() -> int:
    """Store the decisions since the newest one that is stored; return how many are new."""
    with open_database() as engine:
        with open_session(engine) as session:
            newest = session.scalar(
                select(func.max(PredictionLabel.settled_at)).where(PredictionLabel.kind == REVIEW)
            )
            # Of two decisions the earlier one may be committed later.
            since = (newest or datetime(2000, 1, 1, tzinfo=UTC)) - timedelta(days=1)
            labels = [describe_review(review) for review in read_review_labels(session, since)]
        return upsert_labels(engine, iter(labels))


def describe_review(label: ReviewLabel) -> dict[str, Any]:
    return {
        "prediction_id": label.prediction_id,
        "kind": REVIEW,
        "anonymized_id": label.anonymized_id,
        "source": "clinician",
        "reviewed_band": label.reviewed_band,
        "reason_code": label.reason_code,
        "settled_at": label.decided_at,
    }
