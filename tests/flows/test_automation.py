"""A real Prefect server hears the drift flow's event and schedules the retraining by itself."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.local.ports import choose_port
from infra.local.processes import start_process, wait_until_healthy
from infra.local.stack import NO_TELEMETRY, WORK_POOL

pytestmark = pytest.mark.nightly

PROJECT = Path(__file__).parents[2]
PREFECT = str(Path(sys.executable).with_name("prefect"))
PATIENCE_SECONDS = 90
#: What the drift flow does once a report breaches, by its own function.
DETECT = """
from datetime import UTC, datetime
from prefect import flow
from flows.drift import announce_drift
from flows.evaluation.drift_report import MeasuredDrift, Window
from monitoring.drift import ColumnDrift, DriftResult
from monitoring.outcome_drift import OutcomeDrift

now = datetime.now(UTC)
column = ColumnDrift(
    column="phq9_total",
    modality="questionnaires",
    importance=0.625,
    method="wasserstein",
    threshold=0.1,
    value=0.4,
    values_drifted=True,
    missing_reference=0.0,
    missing_current=0.0,
    missing_threshold=0.1,
    missing_drifted=False,
    infinite=0,
)
outcomes = OutcomeDrift(0, 0, None, None, None)
found = MeasuredDrift(DriftResult([column], None, 1000, None), outcomes, [])
flow(lambda: announce_drift(Window(4, now, now), found, 0.3, "a" * 32), name="drift")()
"""


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A Prefect server of its own, with everything of prefect.yaml deployed."""
    port = choose_port(14200)
    variables = {
        **os.environ,
        **NO_TELEMETRY,
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PYTHONPATH": str(PROJECT),
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
        "ANONYMIZATION_SALT": "a salt for tests, 256 bit or more of it",
        "AUDIT_SIGNING_KEY": "c2lnbmluZy1rZXktb2YtdGVzdHMtMzItYnl0ZXMhISE=",
        "JWT_SECRET_KEY": "a secret for tests, 256 bit or more of it",
    }
    serve = [PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    server = start_process("prefect", serve, variables, tmp_path)
    try:
        wait_until_healthy(server, f"{variables['PREFECT_API_URL']}/health")
        ask(variables, "work_pools/", {"name": WORK_POOL, "type": "process"})
        deploy = [PREFECT, "--no-prompt", "deploy", "--all"]
        subprocess.run(deploy, cwd=PROJECT, env=variables, check=True, capture_output=True)
        yield variables
    finally:
        server.stop()


def ask(environment: dict[str, str], path: str, body: dict[str, Any]) -> Any:
    url = f"{environment['PREFECT_API_URL']}/{path}"
    answer = httpx.post(url, json=body, timeout=30, trust_env=False)
    answer.raise_for_status()
    return answer.json()


def list_triggered(environment: dict[str, str]) -> list[dict[str, Any]]:
    """Return the runs of the retraining that an automation has made, not a schedule."""
    query = {"deployments": {"name": {"any_": ["retraining"]}}}
    runs = ask(environment, "flow_runs/filter", query)
    return [run for run in runs if not run["auto_scheduled"]]


def test_the_drift_event_schedules_the_retraining_with_its_reason(
    environment: dict[str, str],
) -> None:
    assert list_triggered(environment) == []
    subprocess.run([sys.executable, "-c", DETECT], cwd=PROJECT, env=environment, check=True)

    until = time.monotonic() + PATIENCE_SECONDS
    while not (runs := list_triggered(environment)):
        assert time.monotonic() < until, "no automation has started a retraining"
        time.sleep(1)
    (run,) = runs
    assert run["state"]["type"] == "SCHEDULED"
    assert run["parameters"]["reason"] == "drift of requests, score 0.625"
