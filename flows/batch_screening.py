"""The batch screening flow: everyone who consents, screened once a batch on stored data.

An answer is what POST /screen would give without new questionnaires: serving's own assessment,
composition and record. A batch has a name, and the database holds one answer of it about each
individual: a run that was cut off, or is started again, does what is left. ADR 0023.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import (
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from sqlalchemy import Engine, func, select

from feature_repo.consent_terms import DATA_TYPES, SCREENING
from feature_repo.online import Answers, open_reader
from feature_repo.online_store import OnlineReader
from feature_repo.pseudonyms import BUCKET_COUNT
from feature_repo.stored_views import StoredRow
from flows.lake.consents import page_consenting
from flows.runtime.buckets import run_buckets
from flows.runtime.counts import Counts
from flows.runtime.database import open_database
from flows.runtime.notifications import NOTIFICATION_HOOKS
from flows.runtime.retries import IO_RETRIES
from mlruns_config.manifest import RELEASE_MODEL
from mlruns_config.severity import load_severity_rules
from serving.consent.in_force import read_allowed
from serving.database.sessions import create_database_engine, create_single_engine, open_session
from serving.database.tables import Prediction
from serving.errors import FlowActor, ScoringFailedError
from serving.releases.loading import load_release
from serving.releases.registry import Registry
from serving.releases.signatures import make_release_keys
from serving.releases.watcher import Choice
from serving.reviews.admission import drop_waiting_items
from serving.scoring.assessment import (
    Assessment,
    Case,
    ExplanationOptions,
    LastDecisions,
    RuleFindings,
    describe_inputs,
    read_explanation_options,
)
from serving.scoring.loaded_release import Release
from serving.screening.answers import ScreeningAnswer
from serving.screening.composition import Thresholds, compose_answer, read_thresholds
from serving.screening.decisions import read_last_decisions
from serving.screening.recorder import Record, write_records
from serving.screening.records import Caller, make_record
from serving.screening.screen import assess_or_leave_to_rules
from serving.settings import get_settings

ACTOR = FlowActor("batch screening flow")
BATCH_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
#: Individuals read, scored and written together: bounds memory, and the time in which a
#: withdrawal could come between the reading of a consent and the record.
PAGE_SIZE = 200
SECONDS_TO_READ = 30
SECONDS_TO_WRITE = 60


class BatchNameError(ValueError):
    """The name of a batch is not usable."""


class BatchIncompleteError(RuntimeError):
    """Some individuals have no answer; the same batch, run again, tries them again."""


@dataclass(frozen=True)
class BatchCounts(Counts):
    """Results of a run by individual; `waiting_already` is a part of `screened`."""

    screened: int = 0
    screened_before: int = 0
    #: No value of any data type they consent to is stored: there is nothing to screen.
    without_data: int = 0
    #: Their consent changed between reading it and recording.
    consent_changed: int = 0
    #: Of those screened, who waits for a person already: see `is_waiting`.
    waiting_already: int = 0
    not_scored: int = 0


@dataclass(frozen=True)
class BatchContext:
    """What a bucket is screened with: release, stores and thresholds."""

    release: Release
    reader: OnlineReader
    engine: Engine
    #: Commits each statement separately.
    writer: Engine
    thresholds: Thresholds
    explanations: ExplanationOptions


@flow(name="batch-screening", timeout_seconds=12 * 3600, **NOTIFICATION_HOOKS)
def screen_everybody(batch: str | None = None) -> BatchCounts:
    """Screen every individual with a consent in force on what is stored of them.

    Starting the same batch again screens the individuals without an answer in it. Raises
    BatchIncompleteError, after trying all, when an individual could not be scored.

    Args:
        batch: Name of the batch, by default today's date (UTC). One answer about each individual
            is recorded under it. Letters, digits, dots, dashes and underscores.
    """
    name = name_batch(batch)
    version = find_release()
    progress: Any = create_progress_artifact(
        0.0, key="batch-progress", description=f"Buckets of the batch {name} that are done"
    )
    counts = BatchCounts()
    try:
        all_counts = run_buckets(screen_bucket, range(BUCKET_COUNT), batch=name, version=version)
        for done, bucket_counts in enumerate(all_counts, 1):
            counts += bucket_counts
            update_progress_artifact(progress, 100 * done / BUCKET_COUNT)
    finally:
        report_batch(name, version, counts)
    if counts.not_scored:
        raise BatchIncompleteError(
            f"{counts.not_scored} individuals could not be scored; run the batch {name} again"
        )
    return counts


def name_batch(batch: str | None) -> str:
    """Return the name, today's date without one; raises BatchNameError."""
    name = batch or f"{datetime.now(UTC):%Y-%m-%d}"
    if not BATCH_NAME.fullmatch(name):
        raise BatchNameError(
            "a batch is named by up to 64 letters, digits, dots, dashes and underscores"
        )
    return name


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def find_release() -> int:
    """Return the numeric version of the Production release, once it has been verified."""
    with _open_registry() as registry:
        version = registry.find_production_version(RELEASE_MODEL)
    load_verified(version)
    return version


@lru_cache(maxsize=1)
def load_verified(version: int) -> Release:
    """Return a release, verified as serving verifies it; a process loads a version once."""
    with _open_registry() as registry:
        return load_release(registry, version, make_release_keys(get_settings()))


@contextmanager
def _open_registry() -> Iterator[Registry]:
    settings = get_settings()
    registry = Registry(settings.mlflow_tracking_uri, settings.mlflow_login)
    try:
        yield registry
    finally:
        registry.close()


@task(cache_policy=NO_CACHE, task_run_name="screen-bucket-{bucket}", **IO_RETRIES)
def screen_bucket(bucket: int, batch: str, version: int) -> BatchCounts:
    """Screen one bucket of individuals, a page at a time."""
    counts = BatchCounts()
    with open_context(version) as context:
        for people in page_consenting(context.engine, bucket, SCREENING, PAGE_SIZE):
            counts += screen_page(people, batch, context)
    return counts


@contextmanager
def open_context(version: int) -> Iterator[BatchContext]:
    settings = get_settings()
    url = settings.database_url.get_secret_value()
    engine, writer = create_database_engine(url), create_single_engine(url, SECONDS_TO_WRITE)
    reader = open_reader(SECONDS_TO_READ)
    thresholds, options = read_thresholds(settings), read_explanation_options(settings)
    try:
        yield BatchContext(load_verified(version), reader, engine, writer, thresholds, options)
    finally:
        reader.close()
        writer.dispose()
        engine.dispose()


def screen_page(people: Sequence[str], batch: str, context: BatchContext) -> BatchCounts:
    """Screen those of a page who have no answer in the batch yet, and commit them together.

    Whose consent changed while they were screened is left out: a withdrawal binds at once.
    """
    screened_before = find_screened(context.engine, batch, people)
    left = [person for person in people if person not in screened_before]
    consented = read_consented(context.engine, left)
    rows = context.reader.fetch(Choice(context.release).list_views(), left)
    decisions = read_last_decisions(context.engine, left)
    records: dict[str, Record] = {}
    without_data = not_scored = 0
    for person, data_types in consented.items():
        try:
            decided = decisions.get(person, LastDecisions())
            record = screen_stored(person, data_types, rows[person], batch, context, decided)
        except ScoringFailedError:
            not_scored += 1
            continue
        if record is None:
            without_data += 1
        else:
            records[person] = record
    still = read_consented(context.engine, list(records))
    kept = [record for person, record in records.items() if still.get(person) == consented[person]]
    queued = drop_waiting_items(context.engine, kept)
    if queued:
        write_records(context.writer, queued)
    return BatchCounts(
        screened=len(kept),
        screened_before=len(screened_before),
        without_data=without_data,
        consent_changed=len(left) - without_data - not_scored - len(kept),
        waiting_already=count_reviews(kept) - count_reviews(queued),
        not_scored=not_scored,
    )


def count_reviews(records: Sequence[Record]) -> int:
    return sum(record.review_item is not None for record in records)


def find_screened(engine: Engine, batch: str, people: Sequence[str]) -> set[str]:
    """Return which of the individuals have an answer in a batch."""
    statement = select(Prediction.anonymized_id).where(
        Prediction.batch == batch, Prediction.anonymized_id.in_(people)
    )
    with open_session(engine) as session:
        return set(session.scalars(statement))


def read_consented(engine: Engine, people: Sequence[str]) -> dict[str, frozenset[str]]:
    """Return the data types that may be used now, of those who consent to screening at all."""
    with open_session(engine) as session:
        allowed = read_allowed(session, people, SCREENING)
    return {person: data_types for person, data_types in allowed.items() if data_types}


def screen_stored(
    person: str,
    consented: frozenset[str],
    row: StoredRow,
    batch: str,
    context: BatchContext,
    decided: LastDecisions,
) -> Record | None:
    """Return the rows of one screening on what is stored; None where nothing is.

    Raises ScoringFailedError unless a rule decides without the release.
    """
    case = Case(Answers(datetime.now(UTC)), consented, row, decided=decided)
    findings = case.apply_rules(context.release, load_severity_rules())
    _release, assessment = assess_or_leave_to_rules(
        [context.release], case, findings, context.explanations
    )
    if assessment is not None and set(assessment.missing_data) == set(DATA_TYPES):
        return None
    degraded = ["release"] if assessment is None else []
    answer = compose_answer(person, findings, assessment, degraded, context.thresholds)
    return describe_record(answer, case, findings, assessment, batch)


def describe_record(
    answer: ScreeningAnswer,
    case: Case,
    findings: RuleFindings,
    assessment: Assessment | None,
    batch: str,
) -> Record:
    inputs = describe_inputs(assessment, case.answers) if assessment else {}
    caller = Caller(ACTOR, f"batch:{batch}", deadline=float("inf"), batch=batch)
    level = findings.crisis.level
    return make_record(answer, caller, case.consented, "production", inputs, level)


def report_batch(batch: str, version: int, counts: BatchCounts) -> None:
    """Leave what this run did, and what the batch holds by band, as tables; counts only."""
    create_table_artifact(
        [asdict(counts)], key="batch-run", description=f"Batch {batch}, by release {version}"
    )
    bands = count_bands(batch)
    create_table_artifact(bands, key="batch-screenings", description=f"All answers of {batch}")
    get_run_logger().info("batch %s by release %d: %s", batch, version, counts)


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def count_bands(batch: str) -> list[dict[str, Any]]:
    """Return how many answers a batch holds by band, and how many of them go to a person."""
    reviews = func.count().filter(Prediction.needs_review)
    statement = (
        select(Prediction.risk_band, func.count(), reviews)
        .where(Prediction.batch == batch)
        .group_by(Prediction.risk_band)
        .order_by(func.min(Prediction.risk_score).desc())
    )
    with open_database() as engine, open_session(engine) as session:
        rows = session.execute(statement).all()
    return [{"band": band, "answers": answers, "reviews": queued} for band, answers, queued in rows]
