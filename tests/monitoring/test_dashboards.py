"""Dashboards and rules ask for metrics that exist, and the files are what is built."""

import json

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client import REGISTRY

from monitoring.dashboards import DASHBOARDS, FOLDER, render_dashboard
from tests.fixtures.alert_rules import find_metrics, list_rules

#: Metrics that other exporters show, with who shows them.
OF_OTHERS = {
    "up": "Prometheus itself, of each target",
    "probe_success": "blackbox exporter",
    "pg_up": "postgres exporter",
    "pg_stat_activity_count": "postgres exporter",
    "pg_settings_max_connections": "postgres exporter",
    "container_memory_working_set_bytes": "kubelet (cAdvisor)",
    "container_spec_memory_limit_bytes": "kubelet (cAdvisor)",
    "container_cpu_usage_seconds_total": "kubelet (cAdvisor)",
    "kubelet_volume_stats_available_bytes": "kubelet",
    "kubelet_volume_stats_capacity_bytes": "kubelet",
    "cnpg_collector_pg_wal": "CloudNativePG",
    "cnpg_pg_replication_lag": "CloudNativePG",
    "cnpg_pg_replication_streaming_replicas": "CloudNativePG",
    "node_filesystem_avail_bytes": "node exporter",
    "node_filesystem_size_bytes": "node exporter",
    "kube_cronjob_status_last_successful_time": "kube-state-metrics",
    "kube_job_status_failed": "kube-state-metrics",
    "kube_pod_container_status_restarts_total": "kube-state-metrics",
}


def list_expressions(name: str) -> list[str]:
    board = json.loads((FOLDER / f"{name}-dashboard.json").read_text())
    return [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]


def list_exposed() -> set[str]:
    """Every sample name that /metrics of the API can show."""
    names: set[str] = set()
    for family in REGISTRY.collect():
        names |= {sample.name for sample in family.samples}
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
        names |= {family.name + suffix for suffix in suffixes.get(family.type, [""])}
    return names


def test_names_are_found_in_an_expression_and_labels_are_not() -> None:
    expression = 'sum by (le) (rate(a_total{b="c"}[5m] offset 1h)) / max(d) > 2 unless on () e'
    assert find_metrics(expression) == {"a_total", "d", "e"}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_query_of_a_dashboard_names_metrics_that_exist(name: str) -> None:
    known = list_exposed() | set(OF_OTHERS) | {r["record"] for r in list_rules() if "record" in r}
    expressions = list_expressions(name)
    assert len(expressions) >= 8
    for expression in expressions:
        assert find_metrics(expression) <= known, expression


def test_every_rule_names_metrics_that_exist() -> None:
    rules = list_rules()
    known = list_exposed() | set(OF_OTHERS) | {r["record"] for r in rules if "record" in r}
    for rule in rules:
        assert find_metrics(rule["expr"]) <= known, rule


@pytest.mark.parametrize("name", DASHBOARDS)
def test_the_file_is_what_is_built(name: str) -> None:
    written = (FOLDER / f"{name}-dashboard.json").read_text()
    assert written == render_dashboard(name), "python -m monitoring.dashboards"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_grafana_s_own_types_lose_nothing_of_it(name: str) -> None:
    written = json.loads((FOLDER / f"{name}-dashboard.json").read_text())
    read = json.dumps(Dashboard.from_json(written), cls=JSONEncoder)
    assert json.loads(read) == written


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_lie_beside_each_other_and_ask_the_provisioned_source(name: str) -> None:
    board = json.loads((FOLDER / f"{name}-dashboard.json").read_text())
    sources = yaml.safe_load((FOLDER.parent / "provisioning/datasources.yaml").read_text())
    known = {source["uid"] for source in sources["datasources"]}
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + right, place["y"] + down)
            for right in range(place["w"])
            for down in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(right for right, _ in cells) < 24
        taken |= cells
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] in known
