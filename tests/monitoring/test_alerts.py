"""Alert rules and routes: the guide's list, and what Prometheus' own tools say of them."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.fixtures.alert_rules import RULES, list_rules

MONITORING = RULES.parents[1]
TESTS = MONITORING / "prometheus" / "tests"
#: Those of alerts that take hours evaluate the rules less often.
UNIT_TESTS = ("alerts_test.yaml", "alerts_of_hours_test.yaml")
COMPOSE_RULES = MONITORING / "prometheus" / "compose-alerts.yaml"
RUNBOOKS = MONITORING.parent / "infra" / "runbooks"

#: Name: severity, and how long its condition must hold, as the guide has them.
GUIDE = {
    "APIDown": ("critical", "5m"),
    "HighErrorRate": ("critical", "5m"),
    "HighLatency": ("critical", "5m"),
    "DatabaseDown": ("critical", "1m"),
    "CriticalRiskBacklog": ("critical", None),
    "ModerateErrorRate": ("warning", "10m"),
    "SlowRequests": ("warning", "10m"),
    "HighDrift": ("warning", None),
    "LowModelConfidence": ("warning", "1h"),
    "HighMemoryUsage": ("warning", "5m"),
    "ModelRetrained": ("info", None),
    "ConsentExpiring": ("info", None),
    "HighReviewQueueSize": ("info", None),
}
THRESHOLDS = {
    "HighErrorRate": "> 0.05",
    "HighLatency": ">= 10",
    "CriticalRiskBacklog": "> 50",
    "ModerateErrorRate": "> 0.02",
    "SlowRequests": "> 7",
    "HighDrift": "> 0.5",
    "LowModelConfidence": "< 0.6",
    "HighMemoryUsage": "> 0.8",
    "HighReviewQueueSize": "> 20",
}


def require(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        # CI installs them; elsewhere the rest of the tests still says something.
        assert not os.environ.get("CI"), f"CI must have {program} (.ci/run installs it)"
        pytest.skip(f"{program} is not installed (Debian: prometheus, prometheus-alertmanager)")
    return found


def run(*command: str, cwd: Path = MONITORING) -> str:
    finished = subprocess.run(
        [require(command[0]), *command[1:]], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def list_alerts() -> dict[str, dict]:
    return {rule["alert"]: rule for rule in list_rules() if "alert" in rule}


def test_every_alert_of_the_guide_is_there_with_its_severity_threshold_and_patience() -> None:
    alerts = list_alerts()
    for name, (severity, patience) in GUIDE.items():
        assert alerts[name]["labels"]["severity"] == severity
        assert alerts[name].get("for") == patience
        assert THRESHOLDS.get(name, "") in alerts[name]["expr"]


def test_every_alert_leads_to_a_place_in_a_runbook_that_exists() -> None:
    for name, rule in list_alerts().items():
        file, _, anchor = rule["annotations"]["runbook_url"].rpartition("/")[2].partition("#")
        text = (RUNBOOKS / file).read_text()
        headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
        anchors = {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}
        assert not anchor or anchor in anchors, f"{name}: {file}#{anchor}"


def test_prometheus_accepts_every_rule() -> None:
    run("promtool", "check", "rules", *(str(path) for path in sorted(RULES.glob("*.yaml"))))


@pytest.mark.parametrize("tests", [*UNIT_TESTS, "compose_alerts_test.yaml"])
def test_each_alert_fires_when_it_should_and_not_before(tests: str) -> None:
    run("promtool", "test", "rules", tests, cwd=TESTS)


def list_proven(tests: str) -> set[str]:
    """Return the alerts that some unit test sees firing."""
    found: set[str] = set()
    for one in yaml.safe_load((TESTS / tests).read_text())["tests"]:
        for check in one.get("promql_expr_test", []):
            if check["exp_samples"] and 'alertstate="firing"' in check["expr"]:
                found |= set(re.findall(r'alertname="(\w+)"', check["expr"]))
        found |= {c["alertname"] for c in one.get("alert_rule_test", []) if c["exp_alerts"]}
    return found


def test_every_alert_is_seen_firing_by_a_unit_test() -> None:
    proven = set[str]().union(*(list_proven(tests) for tests in UNIT_TESTS))
    assert set(list_alerts()) - proven == set()
    compose = yaml.safe_load(COMPOSE_RULES.read_text())["groups"]
    named = {rule["alert"] for group in compose for rule in group["rules"]}
    assert named - list_proven("compose_alerts_test.yaml") == set()


def test_prometheus_accepts_its_configuration(tmp_path: Path) -> None:
    """Debian's build has no Kubernetes discovery, so those blocks are left out of this check."""
    config = yaml.safe_load((MONITORING / "prometheus" / "prometheus.yaml").read_text())
    config["rule_files"] = [str(path) for path in RULES.glob("*.yaml")]
    for job in config["scrape_configs"]:
        for one in job.pop("kubernetes_sd_configs", []):
            assert one["role"] in ("pod", "node")
        for secret in ("tls_config", "authorization"):
            job.pop(secret, None)
    path = tmp_path / "prometheus.yaml"
    path.write_text(yaml.safe_dump(config))
    run("promtool", "check", "config", str(path))


def test_prometheus_scrapes_all_that_the_guide_lists() -> None:
    config = yaml.safe_load((MONITORING / "prometheus" / "prometheus.yaml").read_text())
    jobs = {job["job_name"] for job in config["scrape_configs"]}
    assert {"mhras-api", "kubernetes-cadvisor", "postgres", "node", "platform"} <= jobs
    assert config["global"]["scrape_interval"] == "15s"


@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        (["severity=critical", "team=operations"], "pagerduty,slack"),
        (["severity=critical", "team=clinical"], "pagerduty-clinical,slack"),
        (["severity=warning", "team=operations"], "slack"),
        (["severity=warning", "team=ml"], "slack-ml"),
        (["severity=info", "team=ml"], "email"),
        (["severity=unheard-of"], "slack"),
        (["alertname=Watchdog", "severity=none"], "deadman"),
    ],
)
def test_an_alert_reaches_who_must_hear_it(
    labels: list[str], receivers: str, tmp_path: Path
) -> None:
    config = write_for_debian(tmp_path)
    shown = run("amtool", "config", "routes", "test", "--config.file", config, *labels)
    assert shown.strip() == receivers


def write_for_debian(folder: Path) -> str:
    """Debian's amtool (0.25) does not know a webhook's `url_file`, which came with 0.26."""
    text = (MONITORING / "alertmanager" / "alertmanager.yaml").read_text()
    assert text.count("url_file: /etc/alertmanager-secrets/deadman_url") == 1
    text = text.replace("url_file: /etc/alertmanager-secrets/deadman_url", "url: http://localhost")
    text = text.replace("/etc/alertmanager/*.tmpl", str(MONITORING / "alertmanager" / "*.tmpl"))
    path = folder / "alertmanager.yaml"
    path.write_text(text)
    return str(path)


def test_what_a_person_is_sent_links_to_the_runbook(tmp_path: Path) -> None:
    """Never to Alertmanager or Prometheus, which nobody reaches from outside."""
    config = yaml.safe_load((MONITORING / "alertmanager" / "alertmanager.yaml").read_text())
    link = '{{ template "mhras.link" . }}'
    for receiver in config["receivers"]:
        for one in receiver.get("slack_configs", []):
            assert one["title_link"] == link
        for one in receiver.get("pagerduty_configs", []):
            assert one["client_url"] == link
            assert [shown["href"] for shown in one["links"]] == [link]
        for one in receiver.get("email_configs", []):
            assert one["html"] == ""
            assert "mhras.text" in one["text"]
    alert = {"annotations": {"runbook_url": "https://git.example.com/troubleshoot.md"}}
    data = tmp_path / "data.json"
    data.write_text(json.dumps({"alerts": [{"status": "firing", **alert}]}))
    shown = run(
        *("amtool", "template", "render", "--template.glob", "alertmanager/*.tmpl"),
        *("--template.text", link, "--template.data", str(data)),
    )
    assert shown.strip() == "https://git.example.com/troubleshoot.md"


def test_alertmanager_accepts_its_configuration_which_holds_no_secret(tmp_path: Path) -> None:
    run("amtool", "check-config", write_for_debian(tmp_path))
    text = (MONITORING / "alertmanager" / "alertmanager.yaml").read_text()
    assert "hooks.slack.com" not in text
    assert not re.search(r"^\s*(routing_key|service_key|smtp_auth_password|api_url):", text, re.M)
