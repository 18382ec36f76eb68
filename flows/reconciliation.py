"""The reconciliation flow: what a killed worker left "running" is marked for what it is.

A killed process reports nothing. Prefect goes on showing its runs as Running, MLflow its runs
too, and a version that was being registered stays half registered. ADR 27.
"""

from datetime import UTC, datetime, timedelta

from mlflow import MlflowClient
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import FlowRun
from prefect.runtime import flow_run

from flows.runtime.notifications import NOTIFICATION_HOOKS, notify
from flows.runtime.orphaned_flow_runs import crash_run, find_last_sign, list_unfinished
from flows.runtime.orphaned_mlflow_runs import find_dead_runs, kill_run
from flows.runtime.orphaned_versions import list_broken, mark_broken
from flows.runtime.releases import hold_registry
from flows.runtime.retries import IO_RETRIES
from mlruns_config.manifest import RELEASE_MODEL
from mlruns_config.registry.reconcile import compare_productions
from serving.settings import get_settings

#: A flow gives a sign of life every three minutes; five of them missed is no slow network.
SILENCE_MINUTES = 15


@flow(name="reconciliation", timeout_seconds=600, **NOTIFICATION_HOOKS)
def reconcile_runs(silence_minutes: int = SILENCE_MINUTES) -> list[str]:
    """Mark abandoned runs and versions; return what was found.

    Flow and task runs become Crashed, MLflow runs KILLED, half-registered versions are tagged in
    MLflow; each is reported once. Nothing is started again: a schedule or a person does that.

    Args:
        silence_minutes: A run that gave no sign of life for so long is taken for dead.
    """
    silence = timedelta(minutes=silence_minutes)
    abandoned = mark_crashed(silence) + mark_killed(silence) + mark_half_registered()
    if abandoned:
        create_table_artifact([{"found": text} for text in abandoned], key="reconciliation")
        notify(f"abandoned by a killed worker: {'; '.join(abandoned)}")
    get_run_logger().info("%d abandoned runs and versions", len(abandoned))
    return abandoned


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def mark_crashed(silence: timedelta) -> list[str]:
    """Mark flow runs without a sign of life as Crashed, with the tasks they were at."""
    now = datetime.now(UTC)
    silent = [run for run in list_unfinished() if _is_other(run) and is_silent(run, now, silence)]
    return [f"flow run {run.name} ({crash_run(run)} tasks) is Crashed" for run in silent]


def _is_other(run: FlowRun) -> bool:
    return str(run.id) != flow_run.get_id()


def is_silent(run: FlowRun, now: datetime, silence: timedelta) -> bool:
    return now - find_last_sign(run) >= silence


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def mark_killed(silence: timedelta) -> list[str]:
    """Mark MLflow runs as KILLED whose flow run has ended."""
    client = MlflowClient(get_settings().mlflow_tracking_uri)
    dead = find_dead_runs(client, datetime.now(UTC) - silence)
    for run in dead:
        kill_run(client, run)
    return [f"MLflow run {run.info.run_name} is KILLED" for run in dead]


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def mark_half_registered() -> list[str]:
    """Tag versions with an interrupted registration; report where Production is in doubt."""
    with hold_registry() as registry:
        broken = list_broken(registry.client)
        for version in broken:
            mark_broken(registry.client, version)
        productions = compare_productions(registry)
    abandoned = [
        f"{version.model} {version.version} is half registered: {version.why}" for version in broken
    ]
    if not productions.agree:
        # A person may cause it as well: reported until `registry reconcile` has been run.
        abandoned.append(f"{RELEASE_MODEL}: Production is in doubt: {productions.describe()}")
    return abandoned


if __name__ == "__main__":
    # Run while no flow is running: at the start of a stack, before its worker.
    reconcile_runs(silence_minutes=0)
