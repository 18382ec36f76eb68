"""The drift flow: recent screenings against the training data of the Production release."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import mlflow
import pandas as pd
import polars as pl
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event
from pydantic import AwareDatetime

from feature_repo.stored_views import JOIN_KEY
from flows.evaluation.drift_report import (
    SUMMARY_PAGE,
    MeasuredDrift,
    Window,
    log_files,
    make_summary,
)
from flows.evaluation.outcome_drift import (
    Mix,
    measure_groups,
    measure_outcomes,
)
from flows.lake.tables import scan_table
from flows.runtime.arguments import pass_whole
from flows.runtime.database import open_database
from flows.runtime.notifications import NOTIFICATION_HOOKS, notify
from flows.runtime.retries import IO_RETRIES
from mlruns_config.experiments import DRIFT, open_experiment
from mlruns_config.manifest import RELEASE_MODEL
from mlruns_config.pages import locate_run
from mlruns_config.registry.transitions import find_production, open_registry, read_metrics
from monitoring.drift import SAMPLE_ROWS, DriftResult, measure_drift
from monitoring.drift_reference import REFERENCE_FILE, DriftReference
from monitoring.outcome_drift import GroupDrift, OutcomeDrift, describe_performance
from serving.database.sessions import open_session
from serving.database.tables import DriftReport
from serving.predictions.drift_records import (
    DATASETS,
    ScreenedSample,
    sample_outcomes,
    sample_screenings,
)
from serving.settings import get_settings

EXPERIMENT = DRIFT
DRIFT_DETECTED = "drift.detected"
WINDOW_DAYS = 30
#: Outcomes come after 90 days; screenings of a year tell of them.
OUTCOME_DAYS = 365
PERFORMANCE_DEGRADED = "performance.degraded"
#: Labelled screenings that are looked at.
LABELLED_ROWS = 20_000
#: Fewer screenings than this say nothing about a population.
MIN_SCREENINGS = 200


@flow(name="drift", timeout_seconds=2 * 3600, **NOTIFICATION_HOOKS)
def watch_drift(window_days: int = WINDOW_DAYS, begin: AwareDatetime | None = None) -> float | None:
    """Compare the screenings of the last days with the Production release's training.

    Screenings on request and those of batches are compared apart, each with what it would read.
    Returns the larger drift score, None when there was nothing to compare. An alarm of a modality,
    or a score from DRIFT_THRESHOLD on, emits `drift.detected`, which starts the retraining
    automation, and notifies people. So it does (`performance.degraded`) when outcomes show that
    the release has lost what it could.

    Args:
        window_days: Length in days of the window of screenings that ends now.
        begin: Moment, with its time zone, at which the window begins instead.
    """
    settings = get_settings()
    reference = load_reference() if settings.enable_drift_monitoring else None
    if reference is None:
        get_run_logger().info("drift is not watched, or no release is in Production")
        return None
    version, summary = reference
    end = datetime.now(UTC)
    begin = begin or end - timedelta(days=window_days)
    windows = [Window(version, begin, end, dataset) for dataset in DATASETS]
    examined = [
        comparison for window in windows if (comparison := examine(window, summary)) is not None
    ]
    run_ids = [report_drift(comparison, settings.drift_threshold) for comparison in examined]
    # Outcomes are of both kinds together: people are notified of them once.
    if examined and examined[0].drift.outcomes.has_drifted:
        announce_degradation(examined[0].window, examined[0].drift.outcomes, run_ids[0])
    return max((comparison.drift.result.drift_score for comparison in examined), default=None)


@dataclass(frozen=True)
class Examined:
    """A window, the screenings of it that were tested, and their drift."""

    window: Window
    sample: ScreenedSample
    drift: MeasuredDrift


def examine(window: Window, reference: DriftReference) -> Examined | None:
    """Compare what was screened in a window; None where that is too little."""
    sample = read_screenings(window)
    if sample.screened < MIN_SCREENINGS:
        get_run_logger().info("%d %s are too few to compare", sample.screened, window.dataset)
        return None
    given = pass_whole(sample)
    judged = judge_outcomes(window, given, reference.groups, get_settings().lake_url)
    result = compare(pass_whole(choose_part(reference, window)), given)
    return Examined(window, sample, MeasuredDrift(result, *judged))


def choose_part(reference: DriftReference, window: Window) -> DriftReference:
    """Return what a kind of screening is compared with; that of requests where it has none."""
    return (reference.batches if window.dataset == "batches" else None) or reference


def report_drift(examined: Examined, threshold: float) -> str:
    """Store the report, then act on it: a notification must find its report; return its run."""
    window, sample, drift = examined.window, examined.sample, examined.drift
    run_id = log_report(window, pass_whole(sample), pass_whole(drift), threshold)
    store_summary(make_summary(window, sample, drift, threshold, run_id))
    create_markdown_artifact(drift.describe(), key=f"drift-{window.dataset}")
    if drift.list_alarms(threshold):
        announce_drift(window, drift, threshold, run_id)
    return run_id


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def load_reference() -> tuple[int, DriftReference] | None:
    """Return the Production release's version and what its training data looked like."""
    settings = get_settings()
    with open_database() as engine:
        registry = open_registry(settings.mlflow_tracking_uri, engine)
        version = find_production(registry)
    if version is None:
        return None
    run_id = registry.client.get_model_version(RELEASE_MODEL, str(version)).run_id
    mlflow.set_tracking_uri(settings.mlflow_tracking_uri)
    text = mlflow.artifacts.load_text(f"runs:/{run_id}/{REFERENCE_FILE}")
    return version, DriftReference.model_validate_json(text)


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def read_screenings(window: Window) -> ScreenedSample:
    with open_database() as engine, open_session(engine) as session:
        return sample_screenings(
            session, window.begin, window.end, window.version, SAMPLE_ROWS, window.dataset
        )


@task(cache_policy=NO_CACHE)
def compare(reference: DriftReference, sample: ScreenedSample) -> DriftResult:
    features = pd.DataFrame.from_records(sample.features)
    scores = pd.Series(sample.scores, dtype=float)
    return measure_drift(reference, features, scores, len(set(sample.individuals)))


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def judge_outcomes(
    window: Window, sample: ScreenedSample, groups_then: Mix, lake_url: str
) -> tuple[OutcomeDrift, list[GroupDrift]]:
    """Compare the release's labelled screenings, and who was screened, with its training."""
    since = window.end - timedelta(days=OUTCOME_DAYS)
    settings = get_settings()
    with open_database() as engine:
        with open_session(engine) as session:
            labelled = sample_outcomes(session, since, window.version, LABELLED_ROWS)
        registry = open_registry(settings.mlflow_tracking_uri, engine)
        version = registry.client.get_model_version(RELEASE_MODEL, str(window.version))
        then = read_metrics(registry, version)
    ages = [row.get("age") for row in sample.features]
    screened = pl.DataFrame(
        {JOIN_KEY: sample.individuals, "age": ages}, schema={JOIN_KEY: pl.String, "age": pl.Float64}
    )
    people = find_people(lake_url, {*sample.individuals, *labelled.individuals})
    return (
        measure_outcomes(labelled, then),
        measure_groups(screened, labelled, people, groups_then),
    )


def find_people(lake_url: str, individuals: set[str]) -> pl.DataFrame:
    """Return (anonymized_id, sex, ethnicity) of the individuals in the lake."""
    people = scan_table(lake_url, "people").select(JOIN_KEY, "sex", "ethnicity")
    return people.filter(pl.col(JOIN_KEY).is_in(sorted(individuals))).collect(engine="streaming")


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def log_report(
    window: Window, sample: ScreenedSample, drift: MeasuredDrift, threshold: float
) -> str:
    """Log metrics, Evidently's page and JSON, and the tables; return the run's id."""
    result = drift.result
    mlflow.set_tracking_uri(get_settings().mlflow_tracking_uri)
    open_experiment(EXPERIMENT)
    title = (
        f"drift of {window.dataset} against release {window.version}, {window.end:%Y-%m-%d %H:%M}"
    )
    with mlflow.start_run(run_name=title) as run:
        mlflow.log_params(
            {
                "release_version": window.version,
                "dataset": window.dataset,
                "alarms": ", ".join(drift.list_alarms(threshold)) or "none",
                "window_begin": window.begin.isoformat(),
                "window_end": window.end.isoformat(),
                "rows_screened": sample.screened,
                "rows_tested": result.rows_current,
                "sampling": f"random, about {SAMPLE_ROWS} rows; reference: {SAMPLE_ROWS} drawn "
                "from the release's summary",
                "threshold": threshold,
                "rows_labelled": drift.outcomes.labels,
            }
        )
        mlflow.log_metrics(
            {
                "drift_score": result.drift_score,
                "drifted_share": result.drifted_share,
                "missing_drifted_share": result.missing_share,
            }
            | {
                f"outcomes_{name}": value
                for name, value in describe_performance(drift.outcomes.performance).items()
            }
        )
        log_files(drift, title)
    page = locate_run(
        run.info.experiment_id, run.info.run_id, SUMMARY_PAGE, mlflow.get_tracking_uri()
    )
    create_link_artifact(page, link_text="drift report", key=f"drift-report-{window.dataset}")
    return str(run.info.run_id)


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def store_summary(summary: DriftReport) -> None:
    with open_database() as engine, open_session(engine) as session:
        session.merge(summary)  # a retry finds the row of the attempt before


def announce_degradation(window: Window, outcomes: OutcomeDrift, run_id: str) -> None:
    """Emit the event, and notify people, who decide about retraining."""
    emit_event(
        PERFORMANCE_DEGRADED,
        resource={
            "prefect.resource.id": f"model.{RELEASE_MODEL}.{window.version}",
            "prefect.resource.name": f"{RELEASE_MODEL} {window.version}",
        },
        payload=outcomes.to_dict() | {"run_id": run_id},
    )
    notify(f"release {window.version} in use: {outcomes.describe()}; MLflow run {run_id}")


def announce_drift(window: Window, drift: MeasuredDrift, threshold: float, run_id: str) -> None:
    """Emit the event for automations, and notify people."""
    alarms, score = drift.list_alarms(threshold), drift.result.drift_score
    emit_event(
        DRIFT_DETECTED,
        resource={
            "prefect.resource.id": f"model.{RELEASE_MODEL}.{window.version}",
            "prefect.resource.name": f"{RELEASE_MODEL} {window.version}",
        },
        payload={
            "drift_score": score,
            "dataset": window.dataset,
            "alarms": alarms,
            "run_id": run_id,
        },
    )
    notify(
        f"drift of {window.dataset} against release {window.version}: {', '.join(alarms)}; "
        f"drifted features hold {score:.0%} of its importance; report in MLflow run {run_id}"
    )
