"""A person's approval of a step of a rollout: the run is suspended until it is resumed.

In Prefect's UI a suspended run has a button Resume with a form; `prefect flow-run resume` does not
ask for input. While it is suspended no process runs, and the schedule's next runs find it waiting.
"""

from typing import Annotated
from uuid import UUID

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.runtime import deployment, flow_run
from pydantic import Field, StringConstraints

from flows.runtime.notifications import notify

#: After this many seconds a suspended run fails with a notification; the next run suspends again.
PATIENCE_SECONDS = 7 * 24 * 3600

Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]


class Approval(RunInput):
    """A person's decision on a step; name and reason go into the promotion ledger."""

    approve: Annotated[bool, Field(description="Take the step; otherwise the rollout is stopped.")]
    approver: Annotated[Words, Field(description="Who decides.")]
    reason: Annotated[Words, Field(description="Why.")]


def ask_for_approval(version: int, step: str) -> Approval:
    """Suspend the run until a person has decided, and return what they decided.

    The flow begins again when it is resumed and comes here again; a decision is on this release
    and step only. Needs a deployment: raises RuntimeError where the run has none.
    """
    # Of letters and digits: Prefect keeps the input under this name.
    key = f"release-{version}-{step.replace(' ', '-').replace('.', '-').lower()}"
    if not has_asked(key):
        notify(f"release {version} waits for a person's approval of {step}: resume the flow run")
    get_run_logger().info("release %d: %s needs a person's approval", version, step)
    decision = suspend_flow_run(wait_for_input=Approval, key=key, timeout=PATIENCE_SECONDS)
    assert isinstance(decision, Approval)  # None only where no input is waited for
    return decision


def has_asked(key: str) -> bool:
    """Whether this run was suspended for this decision before, and is resumed now."""
    with get_client(sync_client=True) as client:
        policy = client.read_flow_run(UUID(flow_run.get_id())).empirical_policy
    return key in (policy.pause_keys or set())


def find_waiting_run() -> str | None:
    """Return the name of another run of this deployment that waits for a person, or None."""
    if deployment.id is None:
        return None
    waiting = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED]))
    )
    own = DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id]))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=waiting, deployment_filter=own)
    return next((run.name for run in runs if str(run.id) != flow_run.get_id()), None)
