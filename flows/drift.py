"""The drift flow: what was screened lately against what the Production release learnt from."""

import json
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
import pandas as pd
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from flows.notify import TOLD, notify
from mlruns_config.registry import find_production, open_registry
from mlruns_config.release import RELEASE_MODEL
from monitoring.drift import SAMPLE_ROWS, DriftResult, measure_drift
from monitoring.drift_reference import REFERENCE_FILE, DriftReference
from serving.database.sessions import create_database_engine, open_session
from serving.database.tables import DriftReport
from serving.drift_records import ScreenedSample, sample_screenings
from serving.settings import get_settings

EXPERIMENT = "mhras-drift"
DRIFT_DETECTED = "drift.detected"
WINDOW_DAYS = 30
#: Fewer screenings than this say nothing about a population.
FEWEST_SCREENINGS = 200
IO_RETRIES: dict[str, Any] = {"retries": 2, "retry_delay_seconds": [2, 10]}


@dataclass(frozen=True)
class Window:
    """The time whose screenings are compared with a release."""

    version: int
    begin: datetime
    end: datetime


@flow(name="drift", **TOLD)
def watch_drift(window_days: int = WINDOW_DAYS) -> float | None:
    """Compare the screenings of the last `window_days` with the Production release's training.

    Returns the drift score, None when there was nothing to compare. From DRIFT_THRESHOLD on it
    emits `drift.detected`, which the retraining automation hears, and tells people.
    """
    settings = get_settings()
    reference = load_reference() if settings.enable_drift_monitoring else None
    if reference is None:
        get_run_logger().info("drift is not watched, or no release is in Production")
        return None
    version, summary = reference
    end = datetime.now(UTC)
    window = Window(version, end - timedelta(days=window_days), end)
    sample = read_screenings(window)
    if sample.screened < FEWEST_SCREENINGS:
        get_run_logger().info("%d screenings are too few to compare", sample.screened)
        return None
    result = compare(summary, sample)
    report_drift(window, sample, result, settings.drift_threshold)
    return result.drift_score


def report_drift(
    window: Window, sample: ScreenedSample, result: DriftResult, threshold: float
) -> None:
    """Keep the report, then act on it: what is told must be there to be looked up."""
    run_id = log_report(window, sample, result, threshold)
    store_summary(make_summary(window, sample, result, threshold, run_id))
    create_markdown_artifact(describe(result), key="drift")
    if result.drift_score >= threshold:
        announce_drift(window, result, run_id)


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def load_reference() -> tuple[int, DriftReference] | None:
    """Return the Production release's version and what its training data looked like."""
    settings = get_settings()
    engine = create_database_engine(settings.database_url.get_secret_value())
    registry = open_registry(settings.mlflow_tracking_uri, engine)
    version = find_production(registry)
    engine.dispose()
    if version is None:
        return None
    run_id = registry.client.get_model_version(RELEASE_MODEL, str(version)).run_id
    mlflow.set_tracking_uri(settings.mlflow_tracking_uri)
    text = mlflow.artifacts.load_text(f"runs:/{run_id}/{REFERENCE_FILE}")
    return version, DriftReference.model_validate_json(text)


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def read_screenings(window: Window) -> ScreenedSample:
    engine = create_database_engine(get_settings().database_url.get_secret_value())
    try:
        with open_session(engine) as session:
            return sample_screenings(session, window.begin, window.end, window.version, SAMPLE_ROWS)
    finally:
        engine.dispose()


@task(cache_policy=NO_CACHE)
def compare(reference: DriftReference, sample: ScreenedSample) -> DriftResult:
    features = pd.DataFrame.from_records(sample.features)
    return measure_drift(reference, features, pd.Series(sample.scores, dtype=float))


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def log_report(
    window: Window, sample: ScreenedSample, result: DriftResult, threshold: float
) -> str:
    """Log metrics, Evidently's page and JSON, and the table of columns; return the run's id."""
    mlflow.set_tracking_uri(get_settings().mlflow_tracking_uri)
    mlflow.set_experiment(EXPERIMENT)
    with mlflow.start_run(run_name=f"drift {window.end:%Y-%m-%d %H:%M}") as run:
        mlflow.log_params(
            {
                "release_version": window.version,
                "window_begin": window.begin.isoformat(),
                "window_end": window.end.isoformat(),
                "rows_screened": sample.screened,
                "rows_tested": result.rows_current,
                "sampling": f"random, about {SAMPLE_ROWS} rows; reference: {SAMPLE_ROWS} drawn "
                "from the release's summary",
                "threshold": threshold,
            }
        )
        mlflow.log_metrics(
            {
                "drift_score": result.drift_score,
                "drifted_share": result.drifted_share,
                "missing_drifted_share": result.missing_share,
            }
        )
        _log_files(result)
    link = f"{mlflow.get_tracking_uri()}/#/experiments/{run.info.experiment_id}/runs/"
    create_link_artifact(
        f"{link}{run.info.run_id}/artifacts/drift.html",
        link_text="drift report",
        key="drift-report",
    )
    return str(run.info.run_id)


def _log_files(result: DriftResult) -> None:
    mlflow.log_text(json.dumps(describe_columns(result), indent=1), "columns.json")
    mlflow.log_text(describe(result), "summary.md")
    if result.snapshot is None:
        return
    with TemporaryDirectory() as folder:
        page, values = Path(folder) / "drift.html", Path(folder) / "drift.json"
        result.snapshot.save_html(str(page))
        result.snapshot.save_json(str(values))
        for file in (page, values):
            mlflow.log_artifact(str(file))


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def store_summary(summary: DriftReport) -> None:
    engine = create_database_engine(get_settings().database_url.get_secret_value())
    try:
        with open_session(engine) as session:
            session.merge(summary)  # a retry finds the row of the attempt before
    finally:
        engine.dispose()


def make_summary(
    window: Window, sample: ScreenedSample, result: DriftResult, threshold: float, run_id: str
) -> DriftReport:
    return DriftReport(
        id=uuid.uuid4(),
        created_at=window.end,
        release_version=window.version,
        window_begin=window.begin,
        window_end=window.end,
        rows_screened=sample.screened,
        rows_tested=result.rows_current,
        drift_score=result.drift_score,
        drifted_share=result.drifted_share,
        missing_drifted_share=result.missing_share,
        scores_drifted=None if result.score is None else result.score.drifted,
        threshold=threshold,
        run_id=run_id,
        columns=describe_columns(result),
    )


def describe_columns(result: DriftResult) -> dict[str, dict[str, object]]:
    """Return every column's test and missing shares by name, the score's among them."""
    tested = [*result.columns, *([] if result.score is None else [result.score])]
    return {one.column: asdict(one) | {"drifted": one.drifted} for one in tested}


def describe(result: DriftResult) -> str:
    """Return the drifted columns as Markdown, the most important first."""
    lines = [
        f"Drift score {result.drift_score:.3f} on {result.rows_current:,} screenings.",
        "",
        "| column | importance | test | value | missing then | missing now |",
        "|---|---:|---|---:|---:|---:|",
    ]
    for one in result.columns:
        if one.drifted:
            value = "" if one.value is None else f"{one.value:.3f}"
            lines.append(
                f"| {one.column} | {one.importance:.3f} | {one.method or 'none'} | {value} | "
                f"{one.missing_reference:.0%} | {one.missing_current:.0%} |"
            )
    return "\n".join(lines)


def announce_drift(window: Window, result: DriftResult, run_id: str) -> None:
    """Emit the event that automations hear, and tell people."""
    emit_event(
        DRIFT_DETECTED,
        resource={
            "prefect.resource.id": f"model.{RELEASE_MODEL}.{window.version}",
            "prefect.resource.name": f"{RELEASE_MODEL} {window.version}",
        },
        payload={"drift_score": result.drift_score, "run_id": run_id},
    )
    notify(
        f"drift score {result.drift_score:.2f} against release {window.version}; "
        f"report in MLflow run {run_id}"
    )
