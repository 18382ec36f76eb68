"""A real Prometheus scrapes the real API, and its rules fire. A minute, so nightly."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from infra.local.ports import choose_port
from tests.fixtures.api import JWT_SECRET, SALT, SIGNING_KEY
from tests.infra.cluster_objects import PROJECT

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(
        shutil.which("prometheus") is None, reason="Debian's package prometheus is not installed"
    ),
]
ALERTS = PROJECT / "monitoring" / "prometheus" / "alerts"
#: Serves the API with a drift report of 0.7, as the drift flow leaves one.
PROGRAM = """
import sys
from monitoring.metrics import DRIFT_SCORE
DRIFT_SCORE.labels("features").set(0.7)
from serving.__main__ import run_server
run_server("127.0.0.1", int(sys.argv[1]), 1)
"""


def write_configuration(folder: Path, api_port: int) -> Path:
    """The project's rules with their waiting time cut to a second, and one target."""
    for path in ALERTS.glob("*.yaml"):
        rules = yaml.safe_load(path.read_text())
        for group in rules["groups"]:
            for rule in group["rules"]:
                if "for" in rule:
                    rule["for"] = "1s"
        (folder / path.name).write_text(yaml.safe_dump(rules))
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(folder / "*.yaml")],
        "scrape_configs": [
            {
                "job_name": "mhras-api",
                "static_configs": [{"targets": [f"127.0.0.1:{api_port}"]}],
            }
        ],
    }
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    return path


def wait_for(ask: Callable[[], Any], what: str, seconds: float = 90) -> Any:
    until, seen = time.monotonic() + seconds, "no"
    while time.monotonic() < until:
        try:
            if found := ask():
                return found
        except httpx.TransportError as error:
            seen = repr(error)
        time.sleep(0.5)
    pytest.fail(f"{what} did not happen in {seconds} s; last error: {seen}")


def list_firing(port: int) -> set[str]:
    answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/alerts", trust_env=False).json()
    return {
        alert["labels"]["alertname"]
        for alert in answer["data"]["alerts"]
        if alert["state"] == "firing"
    }


def count_healthy(port: int) -> int:
    answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/targets", trust_env=False).json()
    return sum(one["health"] == "up" for one in answer["data"]["activeTargets"])


def test_high_drift_fires_while_the_api_is_up_and_api_down_when_it_is_gone(
    database_url: str, tmp_path: Path
) -> None:
    api_port, port = choose_port(18300), choose_port(19090)
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(PROJECT),
        "DATABASE_URL": database_url,
        "JWT_SECRET_KEY": JWT_SECRET,
        "ANONYMIZATION_SALT": SALT,
        "AUDIT_SIGNING_KEY": SIGNING_KEY,
        "AUDIT_CHECKPOINT_URL": "memory://audit",
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
    }
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    api = subprocess.Popen([sys.executable, "-c", PROGRAM, str(api_port)], env=environment, **quiet)
    prometheus = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={write_configuration(tmp_path, api_port)}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        **quiet,
    )
    try:
        ready = f"http://127.0.0.1:{port}/-/ready"
        wait_for(lambda: httpx.get(ready, trust_env=False).is_success, "Prometheus' start")
        wait_for(lambda: count_healthy(port) == 1, "the first scrape")
        wait_for(lambda: "HighDrift" in list_firing(port), "HighDrift")
        # It fired while nothing answered yet, and must have stopped.
        wait_for(lambda: "APIDown" not in list_firing(port), "the end of APIDown")
        api.terminate()
        api.wait(timeout=40)
        wait_for(lambda: "APIDown" in list_firing(port), "APIDown")
    finally:
        for process in (api, prometheus):
            process.kill()
            process.wait()
