"""The retraining flow: when drift has lasted, a challenger is trained and shadows Production."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event
from sqlalchemy import Engine

from flows.models.families import FAMILIES
from flows.notify import notify
from flows.training import TrainingReport, train
from mlruns_config.registry import Registry, find_production, open_registry
from mlruns_config.release import RELEASE_MODEL
from mlruns_config.rollout import find_rollout, start_shadow
from serving.database.sessions import create_database_engine, open_session
from serving.database.tables import DriftReport
from serving.drift_records import list_newest
from serving.settings import get_settings

ACTOR = "retraining flow"
MODEL_RETRAINED = "ModelRetrained"
#: The newest report must breach, and this many of the last ones: one odd week is no drift.
REPORTS, BREACHES = 5, 2
#: A retraining changes what drift is measured against; a second one waits until that shows.
COOL_DOWN = timedelta(days=7)
IO_RETRIES: dict[str, Any] = {"retries": 2, "retry_delay_seconds": [2, 10]}


@flow(name="retraining")
def retrain(
    reason: str = "by hand",
    force: bool = False,
    members: Sequence[str] = FAMILIES,
    seed: int = 7,
) -> TrainingReport | None:
    """Train a challenger if drift calls for it, and let it shadow the Production release.

    `force` asks neither drift nor cool-down; nothing trains while another candidate is rolled
    out. Returns None when it does not act; the log says why. The challenger goes on through
    traffic share and gates to Production, or is stopped by the guardrails.
    """
    refusal = find_refusal(force)
    if refusal is not None:
        get_run_logger().info("nothing is retrained: %s", refusal)
        return None
    report = train(seed=seed, actor=ACTOR, members=members, promote_to="Staging")
    shadows = shadow_challenger(report.release_version, reason)
    announce(report, shadows, reason)
    return report


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def find_refusal(force: bool) -> str | None:
    """Return why nothing must be trained now, or None."""
    engine = _open_engine()
    try:
        registry = open_registry(get_settings().mlflow_tracking_uri, engine)
        if (rollout := find_rollout(registry)) is not None:
            return f"release {rollout.version} is being rolled out"
        if force:
            return None
        with open_session(engine) as session:
            reports = list_newest(session, REPORTS)
        production = find_production(registry)
        return judge_drift(reports, production) or judge_time(find_last_training(registry))
    finally:
        engine.dispose()


def judge_drift(reports: Sequence[DriftReport], production: int | None) -> str | None:
    """Return why the reports, newest first, call for no retraining, or None.

    Reports against a release that is not in Production any more say nothing about this one.
    """
    breaches = [
        one.release_version == production and one.drift_score >= one.threshold
        for one in reports[:REPORTS]
    ]
    if not breaches or not breaches[0]:
        return "the newest drift report does not breach"
    if sum(breaches) < BREACHES:
        return f"{sum(breaches)} of the last {REPORTS} drift reports breach, {BREACHES} must"
    return None


def judge_time(last: datetime | None) -> str | None:
    """Return why it is too early to train again, or None."""
    if last is None or datetime.now(UTC) - last >= COOL_DOWN:
        return None
    return f"the last training was on {last:%Y-%m-%d}, less than {COOL_DOWN.days} days ago"


def find_last_training(registry: Registry) -> datetime | None:
    """Return when the newest release was registered, whatever became of it."""
    versions = registry.client.search_model_versions(f"name='{RELEASE_MODEL}'")
    created = max((one.creation_timestamp for one in versions), default=None)
    return None if created is None else datetime.fromtimestamp(created / 1000, UTC)


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def shadow_challenger(version: int, reason: str) -> bool:
    """Let the challenger shadow Production; False where there is none to shadow."""
    engine = _open_engine()
    try:
        registry = open_registry(get_settings().mlflow_tracking_uri, engine)
        if find_production(registry) is None:
            return False
        if find_rollout(registry) is None:  # a retry finds it started
            start_shadow(registry, version, ACTOR, f"retrained: {reason}")
        return True
    finally:
        engine.dispose()


def announce(report: TrainingReport, shadows: bool, reason: str) -> None:
    version = report.release_version
    emit_event(
        MODEL_RETRAINED,
        resource={
            "prefect.resource.id": f"model.{RELEASE_MODEL}.{version}",
            "prefect.resource.name": f"{RELEASE_MODEL} {version}",
        },
        payload={"reason": reason, "run_id": report.run_id, "shadows": shadows},
    )
    then = "shadows Production" if shadows else "waits in Staging"
    notify(f"release {version} was trained ({reason}) and {then}")


def _open_engine() -> Engine:
    return create_database_engine(get_settings().database_url.get_secret_value())
