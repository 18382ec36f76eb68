"""Abandoned flow runs on Prefect's server."""

from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    LogFilter,
    LogFilterFlowRunId,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType, TaskRun
from prefect.client.schemas.sorting import LogSort, TaskRunSort
from prefect.events.filters import EventFilter, EventNameFilter, EventOrder, EventResourceFilter
from prefect.states import Crashed

HEARTBEAT = "prefect.flow-run.heartbeat"
#: States in which a process is, or is about to be, at work on a run.
UNFINISHED = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
PAGE = 100


def list_unfinished() -> list[FlowRun]:
    """Return every flow run in a running or pending state."""
    wanted = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=UNFINISHED)))
    with get_client(sync_client=True) as client:
        return list(_page(client, wanted))


def _page(client: SyncPrefectClient, wanted: FlowRunFilter) -> Iterator[FlowRun]:
    offset = 0
    while runs := client.read_flow_runs(flow_run_filter=wanted, limit=PAGE, offset=offset):
        yield from runs
        offset += len(runs)


def find_last_sign(run: FlowRun) -> datetime:
    """Return the last sign of life: a change of state, of a task, a log line or a heartbeat."""
    assert run.state is not None
    with get_client(sync_client=True) as client:
        signs = [
            run.state.timestamp,
            _find_heartbeat(client, run),
            _find_last_line(client, run),
            *(task.state.timestamp for task in _list_tasks(client, run, None, 1) if task.state),
        ]
    return max(sign for sign in signs if sign is not None)


def crash_run(run: FlowRun) -> int:
    """Mark a run and its unfinished tasks as Crashed; return how many tasks that were.

    By the server's own rules, which free the run's place among those that may run at once.
    """
    message = (
        f"no sign of life since {find_last_sign(run):%Y-%m-%d %H:%M} UTC: its process was killed"
    )
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, Crashed(message=message))
        tasks = _list_tasks(client, run, UNFINISHED, PAGE)
        for task in tasks:
            client.set_task_run_state(task.id, Crashed(message=message), force=True)
    return len(tasks)


def has_ended(flow_run_id: str) -> bool | None:
    """Whether a flow run has ended; None where this server does not know it."""
    wanted = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(flow_run_id)]))
    with get_client(sync_client=True) as client:
        (run,) = client.read_flow_runs(flow_run_filter=wanted) or (None,)
    return None if run is None or run.state is None else run.state.is_final()


def _find_heartbeat(client: SyncPrefectClient, run: FlowRun) -> datetime | None:
    wanted = EventFilter(
        event=EventNameFilter(name=[HEARTBEAT]),
        resource=EventResourceFilter(id=[f"prefect.flow-run.{run.id}"]),
        order=EventOrder.DESC,
    )
    events = client.read_events(wanted, limit=1).events
    return events[0].occurred.astimezone(UTC) if events else None


def _find_last_line(client: SyncPrefectClient, run: FlowRun) -> datetime | None:
    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]))
    lines = client.read_logs(wanted, limit=1, sort=LogSort.TIMESTAMP_DESC)
    return lines[0].timestamp if lines else None


def _list_tasks(
    client: SyncPrefectClient, run: FlowRun, types: list[StateType] | None, limit: int
) -> list[TaskRun]:
    """Return the tasks of a run, the one that ended last first."""
    state = None if types is None else TaskRunFilterState(type=TaskRunFilterStateType(any_=types))
    return client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])),
        task_run_filter=TaskRunFilter(state=state),
        sort=TaskRunSort.END_TIME_DESC,
        limit=limit,
    )
