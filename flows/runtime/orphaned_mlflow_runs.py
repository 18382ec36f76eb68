"""MLflow runs whose flow run has ended without telling them."""

from datetime import datetime

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from flows.runtime.flow_run import FLOW_RUN_TAG
from flows.runtime.orphaned_flow_runs import has_ended, list_unfinished

#: How our experiments begin; what others keep on the same server is theirs.
OURS = "mhras-"
MAX_RUNS = 1000


def find_dead_runs(client: MlflowClient, silent_since: datetime) -> list[Run]:
    """Return abandoned runs in state RUNNING, parents before their children.

    A run names its flow run, or its parent does. One that names nobody is dead if it began before
    `silent_since` and no flow run that was there then is still at work.
    """
    running = {run.info.run_id: run for run in list_runs(client, "RUNNING")}
    earliest = _find_earliest_start()
    dead = [run for run in running.values() if _is_dead(run, running, silent_since, earliest)]
    return sorted(dead, key=lambda run: MLFLOW_PARENT_RUN_ID in run.data.tags)


def list_children(client: MlflowClient, run_id: str) -> list[str]:
    """Return the ids of a run's children, however they ended."""
    runs = _search(client, f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run_id}'")
    return [run.info.run_id for run in runs]


def list_runs(client: MlflowClient, status: str) -> list[Run]:
    """Return the newest runs of our experiments with a status."""
    return _search(client, f"attributes.status = '{status}'")


def _search(client: MlflowClient, asked: str) -> list[Run]:
    ours = [
        experiment.experiment_id
        for experiment in client.search_experiments()
        if experiment.name.startswith(OURS)
    ]
    if not ours:
        return []
    return list(client.search_runs(ours, asked, max_results=MAX_RUNS))


def kill_run(client: MlflowClient, run: Run) -> None:
    client.set_terminated(run.info.run_id, "KILLED")


def _is_dead(
    run: Run, running: dict[str, Run], silent_since: datetime, earliest: datetime | None
) -> bool:
    parent = run.data.tags.get(MLFLOW_PARENT_RUN_ID)
    if parent is not None:
        # A child outlives no parent: of one that has ended, it is abandoned.
        return parent not in running or _is_dead(running[parent], running, silent_since, earliest)
    named = run.data.tags.get(FLOW_RUN_TAG)
    if named:
        return has_ended(named) is True
    begun = datetime.fromtimestamp(run.info.start_time / 1000, silent_since.tzinfo)
    return begun < silent_since and (earliest is None or earliest > begun)


def _find_earliest_start() -> datetime | None:
    """Return when the longest-running flow run that is still at work began."""
    starts = [run.start_time for run in list_unfinished() if run.start_time is not None]
    return min(starts, default=None)
