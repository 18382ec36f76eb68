"""The running flow: its id, its page, and the tag by which MLflow runs name it."""

from prefect.runtime import flow_run
from prefect.utilities.urls import url_for

#: Tag of an MLflow run: id of the flow run that made it.
FLOW_RUN_TAG = "lineage.flow_run_id"


def describe_flow_run() -> dict[str, str]:
    """Return id and page of the running flow; both empty outside of one."""
    run_id = flow_run.get_id()
    url = url_for("flow-run", run_id) if run_id else None
    return {"flow_run_id": str(run_id or ""), "flow_run_url": url or ""}


def name_flow_run() -> dict[str, str]:
    """Return the tag by which an MLflow run names the flow run that made it."""
    return {FLOW_RUN_TAG: describe_flow_run()["flow_run_id"]}
