"""Flow runs of the local stack: started as deployments, as a person would, and followed."""

import time
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.markup import escape

from infra.local.prefect_api import request_prefect
from infra.local.stack import LocalStack

POLL_SECONDS = 1.0
#: State in which an ingestion ends that consents let nothing land of.
WITHHELD = "Withheld"
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED", "PAUSED")


def create_flow_run(stack: LocalStack, deployment: str, parameters: dict[str, Any]) -> str:
    """Start a deployment (`flow/name`), parameters beside its own; return the run's id."""
    description = ask_prefect(stack, "GET", f"deployments/name/{deployment}")
    body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
    path = f"deployments/{description['id']}/create_flow_run"
    return str(UUID(ask_prefect(stack, "POST", path, body)["id"]))


def link_flow_run(stack: LocalStack, run_id: str) -> str:
    return f"{stack.url('prefect')}/runs/flow-run/{run_id}"


def follow(stack: LocalStack, run_id: str, console: Console) -> dict[str, Any]:
    """Print every step as it starts and ends; return the state in which the run ends or pauses."""
    seen: dict[str, str] = {}
    with console.status("waiting for the worker"):
        while True:
            stack.check_alive()
            for step in _list_steps(stack, run_id):
                _report_step(step, seen, console)
            state = ask_prefect(stack, "GET", f"flow_runs/{run_id}")["state"]
            if state["type"] in ENDED:
                return dict(state)
            time.sleep(POLL_SECONDS)


def find_step(stack: LocalStack, run_id: str, flow: str) -> str | None:
    """Return the id of the last run of `flow` among the steps of a run, None without one."""
    ids = [step["id"] for step in _list_steps(stack, run_id) if step["flow"] == flow]
    return str(ids[-1]) if ids else None


def _list_steps(stack: LocalStack, run_id: str) -> list[dict[str, Any]]:
    query = {"flow_runs": {"parent_flow_run_id": {"any_": [run_id]}}, "sort": "START_TIME_ASC"}
    steps = ask_prefect(stack, "POST", "flow_runs/filter", query)
    flows = ask_prefect(stack, "POST", "flows/filter", {})
    names = {flow["id"]: flow["name"] for flow in flows}
    return [step | {"flow": names[step["flow_id"]]} for step in steps]


def _report_step(step: dict[str, Any], seen: dict[str, str], console: Console) -> None:
    state = step["state"]["type"]
    if seen.get(step["id"]) == state:
        return
    seen[step["id"]] = state
    name = step["flow"]
    if state == "COMPLETED" and step["state"]["name"] == WITHHELD:
        message = escape(str(step["state"]["message"]))
        console.print(f"[yellow]![/] {name:10} nothing landed: {message}", soft_wrap=True)
    elif state == "COMPLETED":
        console.print(f"[green]✓[/] {name:10} {step['total_run_time']:.0f} s")
    elif state in ("FAILED", "CRASHED"):
        console.print(f"[red]✗[/] {name:10} {escape(str(step['state']['message']))}")


def ask_prefect(
    stack: LocalStack, method: str, path: str, body: dict[str, Any] | None = None
) -> Any:
    """Ask Prefect's API; return the answer, None where it has no body."""
    response = request_prefect(stack.environment, method, path, body)
    response.raise_for_status()
    return response.json() if response.content else None
