"""A real Prometheus scrapes the real API, and its rules fire. A minute, so nightly."""

import re
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

from infra.backup.__main__ import write_metric
from infra.local.ports import choose_port
from infra.local.postgres import PostgresServer
from serving.audit.signing import Signer
from tests.fixtures.api import JWT_SECRET, SALT, SIGNING_KEY
from tests.fixtures.server_process import make_environment
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
        "RELEASE_PUBLIC_KEYS": Signer(SIGNING_KEY).public_key,
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


# What one machine in production watches (infra/compose.yaml), with Debian's exporters.

EXPORTERS = ("prometheus-postgres-exporter", "prometheus-node-exporter")
EXPORTERS += ("prometheus-blackbox-exporter",)
MONITORING = PROJECT / "monitoring"


def write_production(folder: Path, ports: dict[str, int], mlflow_url: str) -> Path:
    """The file of compose, each service's name and port replaced by where it is here."""
    text = (MONITORING / "prometheus" / "compose-production.yaml").read_text()
    places = {
        "api:9464": f"127.0.0.1:{ports['api']}",
        "postgres-exporter:9187": f"127.0.0.1:{ports['postgres']}",
        "node-exporter:9100": f"127.0.0.1:{ports['node']}",
        "blackbox-exporter:9115": f"127.0.0.1:{ports['blackbox']}",
        "http://mlflow:5000": mlflow_url,
        "http://prefect-server:4200/api/health": f"{mlflow_url}/health",
        "15s": "1s",
    }
    for here, there in places.items():
        assert here in text
        text = text.replace(here, there)
    for path in (*ALERTS.glob("*.yaml"), MONITORING / "prometheus" / "compose-alerts.yaml"):
        rules = re.sub(r"^( +for): .*$", r"\1: 1s", path.read_text(), flags=re.MULTILINE)
        (folder / path.name).write_text(rules)
    text = re.sub(r"/etc/prometheus/(?:alerts/)?([\w-]+\.yaml)", rf"{folder}/\1", text)
    configuration = yaml.safe_load(text)
    del configuration["alerting"]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    return folder / "prometheus.yml"


@pytest.mark.skipif(
    not all(map(shutil.which, EXPORTERS)), reason=f"needs Debian's packages {EXPORTERS}"
)
def test_one_machine_in_production_is_watched_whole_and_no_alarm_is_false(
    postgres: PostgresServer,
    application_url: str,
    mlflow_url: str,
    production_version: int,
    tmp_path: Path,
) -> None:
    names = ("api", "postgres", "node", "blackbox", "prometheus")
    ports: dict[str, int] = {}
    for name in names:
        ports[name] = choose_port(18600, frozenset(ports.values()))
    (tmp_path / "metrics").mkdir()
    write_metric(tmp_path / "metrics" / "mhras_backup.prom", time.time())
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "serving", "--port", str(ports["api"]), "--workers", "1"],
            env=make_environment(application_url, mlflow_url),
            **quiet,
        ),
        subprocess.Popen(
            ["prometheus-postgres-exporter", f"--web.listen-address=127.0.0.1:{ports['postgres']}"],
            env={
                "DATA_SOURCE_URI": f"127.0.0.1:{postgres.port}/postgres?sslmode=disable",
                "DATA_SOURCE_USER": "postgres",
                "DATA_SOURCE_PASS": postgres.password,
            },
            **quiet,
        ),
        subprocess.Popen(
            [
                "prometheus-node-exporter",
                f"--web.listen-address=127.0.0.1:{ports['node']}",
                f"--collector.textfile.directory={tmp_path / 'metrics'}",
                "--no-collector.hwmon",
            ],
            **quiet,
        ),
        subprocess.Popen(
            [
                "prometheus-blackbox-exporter",
                f"--config.file={MONITORING / 'blackbox' / 'blackbox.yaml'}",
                f"--web.listen-address=127.0.0.1:{ports['blackbox']}",
            ],
            **quiet,
        ),
        subprocess.Popen(
            [
                "prometheus",
                f"--config.file={write_production(tmp_path, ports, mlflow_url)}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address=127.0.0.1:{ports['prometheus']}",
            ],
            **quiet,
        ),
    ]
    port = ports["prometheus"]
    try:
        ready = f"http://127.0.0.1:{ports['api']}/health/ready"
        wait_for(lambda: httpx.get(ready, trust_env=False).is_success, "the API's release")
        wait_for(lambda: count_healthy(port) == 5, "a scrape of every target")
        # What fired before everything answered stops; what then fires would be a false alarm.
        wait_for(lambda: list_firing(port) <= HARMLESS, "silence")
        time.sleep(5)
        assert "Watchdog" in list_firing(port)
        assert list_firing(port) <= HARMLESS

        write_metric(tmp_path / "metrics" / "mhras_backup.prom", time.time() - 27 * 3600)
        wait_for(lambda: "BackupMissing" in list_firing(port), "BackupMissing")
        started[1].kill()
        wait_for(lambda: {"DatabaseDown", "TargetDown"} <= list_firing(port), "DatabaseDown")
    finally:
        for process in started:
            process.kill()
            process.wait()


#: The watchdog, and what the machine of the tests may really have: a full disk.
HARMLESS = {"Watchdog", "DiskFillingUp"}
