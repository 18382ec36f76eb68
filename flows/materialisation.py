"""The feature flow: from landed rows to feature tables to Feast's online store."""

from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
from prefect import flow, get_run_logger, task
from prefect.artifacts import (
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE

from feature_repo import definitions
from feature_repo.catalogue import STORED_VIEWS, TABLED_VIEWS
from feature_repo.feast_library import FeatureStore, FeatureView
from feature_repo.online_store import REPOSITORY
from feature_repo.postgres_reader import erase_online_rows
from feature_repo.pseudonyms import BUCKET_COUNT
from feature_repo.stored_views import JOIN_KEY
from feature_repo.weekly_sequence import weekly_sequence
from flows.features.backfilled import list_filled_days
from flows.features.care import compute_care_history
from flows.features.demographics import ALWAYS, compute_demographics
from flows.features.moments import find_midnight, list_moments
from flows.features.online import OnlineWriter, open_writer, read_consents, write_online
from flows.features.sequences import compute_weekly_sequence
from flows.features.surveys import compute_survey_history
from flows.features.tables import (
    ensure_table,
    get_table_version,
    hold_past_nights,
    merge_rows,
    read_latest,
    scan_bucket,
)
from flows.features.wearables import compute_wearable_windows
from flows.lake.consents import keep_consented
from flows.lake.spans import Span, list_spans
from flows.lake.tables import scan_table
from flows.runtime.buckets import run_buckets
from flows.runtime.notifications import NOTIFICATION_HOOKS
from flows.runtime.retries import IO_RETRIES
from flows.sequence_scoring import blank_channels, score_sequences
from serving.settings import get_settings


@dataclass(frozen=True)
class ViewReport:
    """What a run did to one feature view."""

    view: str
    rows: int
    changed: int
    table_version: int


@flow(name="features", timeout_seconds=12 * 3600, **NOTIFICATION_HOOKS)
def materialise_features(as_of: date | None = None) -> list[ViewReport]:
    """Compute the features of every individual and serve those of one day.

    Idempotent: rows that are already there are not written again.

    Args:
        as_of: Day whose start the served features stand for; nothing: today (UTC).
    """
    snapshot = as_of or datetime.now(UTC).date()
    lake_url = get_settings().lake_url
    apply_definitions()
    progress: Any = create_progress_artifact(0.0, key="feature-progress")
    counts: list[dict[str, tuple[int, int]]] = []
    buckets = range(BUCKET_COUNT)
    for bucket_counts in run_buckets(compute_bucket, buckets, lake_url=lake_url, snapshot=snapshot):
        counts.append(bucket_counts)
        update_progress_artifact(progress, 50 * len(counts) / BUCKET_COUNT)
    served = run_buckets(serve_bucket, buckets, lake_url=lake_url, snapshot=snapshot)
    for done, _ in enumerate(served, 1):
        update_progress_artifact(progress, 50 + 40 * done / BUCKET_COUNT)
    score_sequences(snapshot)
    update_progress_artifact(progress, 100.0)
    reports = _summarise(counts)
    create_table_artifact([asdict(report) for report in reports], key="feature-counts")
    get_run_logger().info("features as of %s: %d views", snapshot, len(reports))
    return reports


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def apply_definitions() -> None:
    """Register the feature repository, as `feast apply` does, and make its tables exist."""
    for view in TABLED_VIEWS:
        ensure_table(view)
    FeatureStore(repo_path=str(REPOSITORY)).apply(
        [getattr(definitions, name) for name in definitions.__all__]
    )
    with open_writer() as writer:
        writer.reserve_space_for_updates([view.name for view in TABLED_VIEWS])


@task(cache_policy=NO_CACHE, task_run_name="bucket-{bucket}", **IO_RETRIES)
def compute_bucket(lake_url: str, bucket: int, snapshot: date) -> dict[str, tuple[int, int]]:
    """Compute and write one bucket of every view; return (rows, changed rows) per view."""
    counts = dict.fromkeys((view.name for view in STORED_VIEWS), (0, 0))
    # Opened once, like what `scan_bucket` returns.
    landed = {name: scan_table(lake_url, name, bucket) for name in (*LANDED, OUTCOMES)}
    past = hold_past_nights(snapshot, list_filled_days(lake_url))
    for span in list_spans(lake_url, bucket):
        tables = {name: rows.filter(span.holds()).collect() for name, rows in landed.items()}
        frames = compute_views(tables, snapshot)
        for view in STORED_VIEWS:
            rows, changed = counts[view.name]
            frame = frames[view.name]
            moment, gone = (find_midnight(snapshot), past) if view.ttl else (None, None)
            changed += merge_rows(view, bucket, frame, span, moment, lake_url, gone)
            counts[view.name] = rows + frame.height, changed
    return counts


#: Tables whose individuals have features; adjudicated outcomes beside them name index dates.
LANDED = ("people", "surveys", "wearable_days", "emr_events")
OUTCOMES = "outcomes"


def compute_views(tables: dict[str, pl.DataFrame], snapshot: date) -> dict[str, pl.DataFrame]:
    """Return the rows of every stored view for the individuals of these landed tables.

    `tables` are those of LANDED, and OUTCOMES where there are any.
    """
    surveys, days, events = (tables[name] for name in LANDED[1:])
    individuals = pl.concat([tables[name][JOIN_KEY] for name in LANDED]).unique()
    moments = list_moments(surveys, individuals, snapshot, tables.get(OUTCOMES))
    return {
        "survey_history": compute_survey_history(moments, surveys),
        "wearable_windows": compute_wearable_windows(moments, days),
        "care_history": compute_care_history(moments, events),
        "demographics": compute_demographics(tables["people"]),
        "weekly_sequence": compute_weekly_sequence(moments, surveys, days, events),
    }


@task(cache_policy=NO_CACHE, task_run_name="serve-bucket-{bucket}", **IO_RETRIES)
def serve_bucket(bucket: int, lake_url: str, snapshot: date) -> int:
    """Load one bucket of the snapshot, and what stands for all time, into the online store.

    Only rows of a data type whose use is consented to now; where no single type rules a view,
    those of who consents to any. Rows of others leave the store, as do those of individuals of
    whom nothing is known any more. Returns the rows written.
    """
    consented = read_consents(bucket)
    stored = {view.name: scan_bucket(view, bucket) for view in STORED_VIEWS}
    with open_writer() as writer:
        return sum(
            serve_view(writer, view, stored[view.name], consented, span, snapshot)
            for span in list_spans(lake_url, bucket)
            for view in STORED_VIEWS
        )


def serve_view(
    writer: OnlineWriter,
    view: FeatureView,
    stored: pl.LazyFrame,
    consented: pl.DataFrame,
    span: Span,
    snapshot: date,
) -> int:
    """Load a span's rows of a view into the online store, and remove those not served any more."""
    people = consented.filter(span.holds()).select(JOIN_KEY)
    rows = read_latest(view, stored, span, find_midnight(snapshot) if view.ttl else ALWAYS)
    allowed = keep_consented(rows, view.tags.get("data_type"), consented)
    withheld = rows.join(allowed, on=JOIN_KEY, how="anti")[JOIN_KEY]
    # Of whom nothing is known any more, because it was taken back, nothing is served.
    unknown = people.join(rows, on=JOIN_KEY, how="anti")[JOIN_KEY]
    if withheld.len() + unknown.len():
        erase_online_rows([view.name], *withheld, *unknown)
    if view is weekly_sequence:
        allowed = blank_channels(allowed.join(consented, on=JOIN_KEY))
    return write_online(writer, view, allowed)


def _summarise(counts: list[dict[str, tuple[int, int]]]) -> list[ViewReport]:
    return [
        ViewReport(
            view=view.name,
            rows=sum(bucket[view.name][0] for bucket in counts),
            changed=sum(bucket[view.name][1] for bucket in counts),
            table_version=get_table_version(view),
        )
        for view in STORED_VIEWS
    ]
