"""One machine without Kubernetes: what compose.yaml runs, on a laptop and in production."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from datetime import time as dt_time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import yaml
from typer.testing import CliRunner

from infra.backup.__main__ import app, find_next
from infra.local.ports import choose_port
from tests.fixtures.alert_rules import find_metrics
from tests.fixtures.served import serve
from tests.fixtures.waiting import wait_for_answer
from tests.infra.cluster_objects import PROJECT

INFRA, MONITORING = PROJECT / "infra", PROJECT / "monitoring"
COMPOSE = yaml.safe_load((INFRA / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
#: Beginnings of metrics by the scrape job that shows them.
SHOWN_BY = {
    "mhras_backup_": "node",
    "mhras": "mhras-api",
    "pg_": "postgres",
    "node_": "node",
    "probe_": "platform",
    "up": "",
}
#: Of containers: nothing measures them here, so HighMemoryUsage is silent, and never false.
NOT_MEASURED = {"container_memory_working_set_bytes", "container_spec_memory_limit_bytes"}


def list_services(profile: str | None) -> set[str]:
    return {
        name
        for name, one in SERVICES.items()
        if "profiles" not in one or (profile and profile in one["profiles"])
    }


def read_configuration(name: str) -> dict:
    return yaml.safe_load((MONITORING / "prometheus" / name).read_text())


def list_rules(configuration: dict) -> list[dict]:
    paths = [
        MONITORING / "prometheus" / path.removeprefix("/etc/prometheus/")
        for path in configuration["rule_files"]
    ]
    groups = [group for path in paths for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


@pytest.mark.parametrize(
    ("name", "profile"), [("compose.yaml", None), ("compose-production.yaml", "production")]
)
def test_every_target_is_a_service_that_runs(name: str, profile: str | None) -> None:
    for job in read_configuration(name)["scrape_configs"]:
        for one in job["static_configs"]:
            for target in one["targets"]:
                host = re.sub(r"^https?://", "", target).partition(":")[0]
                assert host in list_services(profile), target


@pytest.mark.parametrize("name", ["compose.yaml", "compose-production.yaml"])
def test_no_alert_fires_because_nothing_measures_what_it_watches(name: str) -> None:
    configuration = read_configuration(name)
    jobs = {job["job_name"] for job in configuration["scrape_configs"]} | {""}
    for rule in list_rules(configuration):
        for metric in find_metrics(rule["expr"]) - NOT_MEASURED:
            shown = next(job for start, job in SHOWN_BY.items() if metric.startswith(start))
            assert shown in jobs, f"{rule.get('alert')}: {metric}"


def test_production_has_what_a_laptop_goes_without() -> None:
    added = list_services("production") - list_services(None)
    assert added == {
        *("edge", "backup", "alertmanager", "loki", "alloy", "node-exporter"),
        "blackbox-exporter",
    }
    rules = {
        rule.get("alert") for rule in list_rules(read_configuration("compose-production.yaml"))
    }
    assert {"BackupMissing", "Watchdog", "DiskFillingUp", "DatabaseDown", "TargetDown"} <= rules


def test_only_the_edge_is_reached_from_outside() -> None:
    outside = {
        name
        for name, one in SERVICES.items()
        if any(not port.startswith("127.0.0.1:") for port in one.get("ports", []))
    }
    assert outside == {"edge"}


@pytest.mark.parametrize("name", sorted(list_services("production")))
def test_every_service_is_pinned_and_drops_what_it_does_not_need(name: str) -> None:
    service = SERVICES[name]
    assert re.search(r":\S*(\d|dev)", service["image"])
    if "production" in service.get("profiles", []):
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
        # Alloy alone needs the owner of Docker's socket.
        assert service.get("read_only") is True or name == "alloy"


def test_the_backup_of_compose_leaves_nothing_out_but_configuration() -> None:
    given = SERVICES["backup"]["environment"]
    named = re.findall(r"@postgres:5432/(\w+)", given["BACKUP_DATABASE_URLS"])
    assert named == ["mhras", "mlflow", "prefect", "feast"]
    assert given["BACKUP_WITHOUT"] == "configuration"
    for tree in ("MODELS", "LAKE", "CHECKPOINTS"):
        assert given[f"BACKUP_{tree}_URL"].startswith("/data/")
    assert SERVICES["backup"]["init"] is True


def test_the_alerts_of_compose_lead_to_the_runbook() -> None:
    config = yaml.safe_load((MONITORING / "alertmanager" / "compose.yaml").read_text())
    (slack,) = [one for one in config["receivers"] if one["name"] == "slack"]
    assert slack["slack_configs"][0]["title_link"] == '{{ template "mhras.link" . }}'
    assert set(SERVICES["alertmanager"]["secrets"]) == set(COMPOSE["secrets"])


def test_the_registration_of_compose_is_given_what_it_reads_and_the_api_no_administrator() -> None:
    program = (INFRA / "cluster" / "registration.py").read_text()
    readers = program[program.index("def register_readers") :]
    read = set(re.findall(r'environment\["(\w+)"\]', readers[: readers.index("def run")]))
    assert "MLFLOW_PROMOTER_USERNAME" in read
    assert read - set(SERVICES["readers"]["environment"]) == set()
    assert "MLFLOW_ADMIN_PASSWORD" not in str(SERVICES["api"]["environment"])


# The schedule of the backup.


@pytest.mark.parametrize(
    ("now", "due"),
    [
        ("2026-01-01T01:59:59", "2026-01-01T02:00:00"),
        ("2026-01-01T02:00:00", "2026-01-02T02:00:00"),
        ("2026-12-31T23:00:00", "2027-01-01T02:00:00"),
    ],
)
def test_the_next_backup_is_at_the_next_time_of_day(now: str, due: str) -> None:
    moment = datetime.fromisoformat(now).replace(tzinfo=UTC)
    assert find_next(dt_time(2), moment) == datetime.fromisoformat(due).replace(tzinfo=UTC)


def test_a_schedule_that_could_never_back_up_ends_at_once(tmp_path: Path) -> None:
    wrong = CliRunner().invoke(app, ["schedule", "--at", "2 am"])
    assert (wrong.exit_code, "HH:MM" in wrong.output) == (2, True)
    empty = CliRunner().invoke(app, ["schedule"], env={"BACKUP_URL": str(tmp_path)})
    assert empty.exit_code == 2
    assert "BACKUP_DATABASE_URLS" in empty.output


# The way in, by Debian's Caddy.


class Upstream(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.path.encode())

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Ports (HTTP, HTTPS) of Caddy with the project's Caddyfile before two small servers."""
    if shutil.which("caddy") is None:
        pytest.skip("Debian's package caddy is not installed")
    upstream = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    plain = choose_port(15080)
    tls = choose_port(15443, frozenset([plain]))
    text = (INFRA / "compose" / "Caddyfile").read_text()
    text = re.sub(r"(api:8000|grafana:3000)", f"127.0.0.1:{upstream.server_port}", text)
    ports = f"\thttp_port {plain}\n\thttps_port {tls}\n\tskip_install_trust\n\tadmin off"
    text = text.replace("\tadmin off", ports)
    (tmp_path / "Caddyfile").write_text(text)
    caddy = subprocess.Popen(
        ["caddy", "run", "--config", str(tmp_path / "Caddyfile"), "--adapter", "caddyfile"],
        env={
            "PATH": "/usr/bin",
            "HOME": str(tmp_path),
            "MHRAS_DOMAIN": "mhras.test",
            "MHRAS_TLS": "tls internal",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with serve(upstream):
            wait_for_edge(tls)
            yield plain, tls
    finally:
        caddy.terminate()
        caddy.wait(timeout=30)


def ask(port: int, path: str, host: str = "api.mhras.test") -> httpx.Response:
    # The authority is Caddy's own, made a second ago.
    with httpx.Client(verify=False, trust_env=False) as client:
        return client.get(
            f"https://127.0.0.1:{port}{path}",
            headers={"Host": host},
            extensions={"sni_hostname": host},
        )


def wait_for_edge(port: int) -> None:
    wait_for_answer(
        lambda: ask(port, "/"), lambda answer: answer.is_success, "Caddy did not come up", 30
    )


@pytest.mark.nightly
def test_the_edge_ends_tls_refuses_metrics_and_passes_the_rest(edge: tuple[int, int]) -> None:
    plain, tls = edge
    for path in ("/metrics", "/metrics/"):
        assert ask(tls, path).status_code == 403
    for path in ("/health", "/models/rollback"):
        answer = ask(tls, path)
        assert (answer.status_code, answer.text) == (200, path)
        assert "max-age" in answer.headers["Strict-Transport-Security"]
    assert ask(tls, "/login", "grafana.mhras.test").text == "/login"
    with httpx.Client(trust_env=False) as client:
        moved = client.get(f"http://127.0.0.1:{plain}/health", headers={"Host": "api.mhras.test"})
    assert moved.status_code == 308
    assert moved.headers["Location"].startswith("https://api.mhras.test")
