"""The retraining flow: when drift has lasted, a challenger is made and shadows Production.

It is Production recalibrated where that suffices on the newest labelled outcomes, else a newly
trained release (ADR 75).
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from mlflow import MlflowClient
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows.evaluation.comparison import log_comparison
from flows.evaluation.sufficiency import Choice
from flows.models.families import FAMILIES
from flows.newest_outcomes import NewestOutcomes, assess_production
from flows.recalibration import Offered, register_recalibrated
from flows.runtime.notifications import NOTIFICATION_HOOKS
from flows.runtime.releases import MODEL_RETRAINED, announce, hold_registry
from flows.runtime.retries import IO_RETRIES
from flows.training import TrainingReport, train
from mlruns_config.manifest import RELEASE_MODEL
from mlruns_config.registry.rollout import find_rollout, start_shadow
from mlruns_config.registry.transitions import Registry, find_production, promote
from serving.database.sessions import open_session
from serving.database.tables import DriftReport
from serving.predictions.drift_records import DATASETS, list_newest

ACTOR = "retraining flow"
#: The newest report must breach, and this many of the last ones: one odd week is no drift.
REPORTS, BREACHES = 5, 2
#: Reports that are read to find REPORTS whose windows do not overlap: of a daily drift flow with
#: windows of 30 days, five such are 150 days, of two datasets each.
REPORTS_READ = 400
CALM = "the newest drift report does not breach"
#: A retraining changes what drift is measured against; a second one waits until that shows.
COOL_DOWN_DAYS = 7
ASKED_NEW = Choice(False, "the run asked for no recalibration")


@flow(name="retraining", timeout_seconds=14 * 3600, **NOTIFICATION_HOOKS)
def retrain(
    reason: str = "by hand",
    force: bool = False,
    members: Sequence[str] = FAMILIES,
    seed: int = 7,
    cool_down_days: int = COOL_DOWN_DAYS,
    recalibrate_first: bool = True,
) -> TrainingReport | None:
    """Make a challenger if drift calls for it, and let it shadow the Production release.

    Returns None when it does not act; the log gives the reason. Log, ledger, announcement and
    card state whether the challenger is Production recalibrated or newly trained, and why. It has
    been compared with Production; the rollout flow takes it on from shadow, or the guardrails
    stop it.

    Args:
        reason: Why; goes into the promotion ledger.
        force: Ask neither drift nor cool-down. While a candidate is rolled out nothing trains.
        members: Model families to fit where a release is newly trained.
        seed: The same seed and data give the same release.
        cool_down_days: Days since the last release before drift may start the next one.
        recalibrate_first: Recalibrate Production where that suffices on its newest labelled
            outcomes; False trains a new release without a look at them.
    """
    refusal = find_refusal(force, timedelta(days=cool_down_days))
    if refusal is not None:
        get_run_logger().info("nothing is retrained: %s", refusal)
        return None
    newest = assess_production() if recalibrate_first else NewestOutcomes(ASKED_NEW)
    why = f"{reason}; {newest.choice.describe()}"
    report = make_challenger(newest, members, seed, why)
    shadows = shadow_challenger(report.release_version, why)
    announce_challenger(report, newest.choice, reason, shadows)
    return report


def make_challenger(
    newest: NewestOutcomes, members: Sequence[str], seed: int, why: str
) -> TrainingReport:
    """Recalibrate Production or train a new release, as was chosen, and put it in Staging."""
    offered = newest.take_offer()
    if offered is not None:
        return recalibrate_production(newest, offered, why)
    report = train(seed=seed, actor=ACTOR, members=members, promote_to="Staging", reason=why)
    newest.log(MlflowClient(), report.run_id)
    return report


def recalibrate_production(newest: NewestOutcomes, offered: Offered, why: str) -> TrainingReport:
    """Register Production recalibrated, compared with Production on its newest outcomes."""
    with hold_registry() as registry:
        version = register_recalibrated(registry, offered, why)
        run_id = str(registry.client.get_model_version(RELEASE_MODEL, str(version)).run_id)
        newest.log(registry.client, run_id)
        if newest.comparison is not None:
            comparison = replace(newest.comparison, challenger=version)
            log_comparison(registry.client, run_id, comparison)
        promote(registry, version, "Staging", ACTOR, f"retrained: {why}")
        metrics = registry.client.get_run(run_id).data.metrics
    return TrainingReport(run_id, version, "Staging", metrics)


def announce_challenger(report: TrainingReport, choice: Choice, reason: str, shadows: bool) -> None:
    """Log, emit and send which challenger was made, why, and what becomes of it."""
    then = "shadows Production" if shadows else "waits in Staging"
    message = f"release {report.release_version} {then} ({reason}); {choice.describe()}"
    get_run_logger().info(message)
    facts = {
        "reason": reason,
        "recalibrated": choice.recalibrates,
        "why": choice.why,
        "run_id": report.run_id,
        "shadows": shadows,
    }
    announce(MODEL_RETRAINED, report.release_version, message, **facts)


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def find_refusal(force: bool, cool_down: timedelta) -> str | None:
    """Return why nothing must be trained now, or None."""
    with hold_registry() as registry:
        if (rollout := find_rollout(registry)) is not None:
            return f"release {rollout.version} is being rolled out"
        if force:
            return None
        with open_session(registry.engine) as session:
            reports = list_newest(session, REPORTS_READ)
        drift = judge_drift(reports, find_production(registry))
        return drift or judge_time(find_last_training(registry), cool_down)


def judge_drift(reports: Sequence[DriftReport], production: int | None) -> str | None:
    """Return why the reports, newest first, call for no retraining, or None.

    Screenings on request and those of batches are counted apart; a report with an alarm breaches.
    Reports against a release that is not in Production any more say nothing about this one.
    Only windows that do not overlap are counted: of a daily report with windows of 30 days, two
    breaches in a row would be one and the same.
    """
    refusals = [_judge_dataset(reports, production, dataset) for dataset in DATASETS]
    if None in refusals:
        return None
    return next((why for why in refusals if why != CALM), CALM)


def _judge_dataset(
    reports: Sequence[DriftReport], production: int | None, dataset: str
) -> str | None:
    own = [report for report in reports if report.dataset == dataset]
    breaches = [
        report.release_version == production and bool(report.alarms)
        for report in keep_apart_windows(own)[:REPORTS]
    ]
    if not breaches or not breaches[0]:
        return CALM
    if sum(breaches) < BREACHES:
        return f"{sum(breaches)} of the last {REPORTS} drift reports breach, {BREACHES} must"
    return None


def keep_apart_windows(reports: Sequence[DriftReport]) -> list[DriftReport]:
    """Return the reports, newest first, without those whose window overlaps a newer kept one's."""
    kept: list[DriftReport] = []
    for report in reports:
        if not kept or report.window_end <= kept[-1].window_begin:
            kept.append(report)
    return kept


def judge_time(last: datetime | None, cool_down: timedelta) -> str | None:
    """Return why it is too early to train again, or None."""
    if last is None or datetime.now(UTC) - last >= cool_down:
        return None
    return f"the last training was on {last:%Y-%m-%d}, less than {cool_down.days} days ago"


def find_last_training(registry: Registry) -> datetime | None:
    """Return when the newest release was registered, regardless of its stage."""
    versions = registry.client.search_model_versions(f"name='{RELEASE_MODEL}'")
    created = max((model_version.creation_timestamp for model_version in versions), default=None)
    return None if created is None else datetime.fromtimestamp(created / 1000, UTC)


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def shadow_challenger(version: int, reason: str) -> bool:
    """Let the challenger shadow Production; False where there is none to shadow."""
    with hold_registry() as registry:
        if find_production(registry) is None:
            return False
        if find_rollout(registry) is None:  # a retry finds it started
            start_shadow(registry, version, ACTOR, f"retrained: {reason}")
        return True
