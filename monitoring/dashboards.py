"""The four Grafana dashboards, built: ``python -m monitoring.dashboards`` writes their JSON.

tests/monitoring/test_dashboards.py holds the files to be what this builds, and every query to
name metrics that exist.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef

FOLDER = Path(__file__).parent / "grafana" / "dashboards"
PROMETHEUS = DataSourceRef(type_val="prometheus", uid="prometheus")
HALF, QUARTER, HEIGHT = 12, 6, 8


@dataclass(frozen=True)
class Chart:
    """One panel: query, unit and description. `now` shows one number."""

    title: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    description: str = ""
    now: bool = False


OPERATIONS = {
    "Traffic": [
        Chart(
            "Request rate",
            [("sum by (endpoint) (rate(mhras_http_requests_total[5m]))", "{{endpoint}}")],
            "reqps",
        ),
        Chart(
            "Request latency",
            [
                (
                    f"histogram_quantile({quantile}, sum by (le)"
                    " (rate(mhras_http_request_duration_seconds_bucket[5m])))",
                    f"p{quantile * 100:.0f}",
                )
                for quantile in (0.5, 0.95, 0.99)
            ],
            "s",
            "Targets: p50 under 3 s, p95 under 5 s, p99 under 7 s.",
        ),
        Chart(
            "Error rate by endpoint",
            [
                (
                    'sum by (endpoint) (rate(mhras_http_requests_total{status=~"5.."}[5m]))'
                    " / sum by (endpoint) (rate(mhras_http_requests_total[5m]))",
                    "{{endpoint}}",
                )
            ],
            "percentunit",
        ),
        Chart(
            "Refused and shed",
            [
                ("sum(rate(mhras_rate_limited_requests_total[5m]))", "over the caller's limit"),
                ("sum(rate(mhras_screenings_shed_total[5m]))", "too many at once"),
            ],
            "reqps",
        ),
    ],
    "Availability": [
        Chart("API pods up", [("mhras:api_up:count", "")], now=True),
        Chart(
            "API availability, 3 days",
            [("1 - mhras:slo_errors:ratio_rate3d", "")],
            "percentunit",
            "Target: above 99.9 % a month.",
            now=True,
        ),
        Chart("Database up", [("max(pg_up)", "")], now=True),
        Chart("Platform up", [("min(probe_success)", "")], now=True),
    ],
    "Resources": [
        Chart(
            "Pod memory of its limit",
            [
                (
                    'max by (pod) (container_memory_working_set_bytes{container!=""}'
                    ' / (container_spec_memory_limit_bytes{container!=""} > 0))',
                    "{{pod}}",
                )
            ],
            "percentunit",
        ),
        Chart(
            "Pod CPU",
            [("sum by (pod) (rate(container_cpu_usage_seconds_total[5m]))", "{{pod}}")],
            "short",
            "Cores.",
        ),
        Chart(
            "Database connections", [("sum by (datname) (pg_stat_activity_count)", "{{datname}}")]
        ),
        Chart(
            "Node disks",
            [
                (
                    "min by (node, mountpoint) (node_filesystem_avail_bytes"
                    " / node_filesystem_size_bytes)",
                    "{{node}} {{mountpoint}} free",
                )
            ],
            "percentunit",
        ),
    ],
}

ML = {
    "Releases": [
        Chart(
            "Release served, by workers",
            [("count by (version) (mhras_release_info == 1)", "release {{version}}")],
        ),
        Chart(
            "Releases that could not be loaded",
            [("sum(increase(mhras_release_load_failures_total[1h]))", "attempts")],
        ),
        Chart(
            "Shadow scorings",
            [("sum by (outcome) (rate(mhras_shadow_scorings_total[5m]))", "{{outcome}}")],
            "reqps",
        ),
        Chart(
            "Answered without a dependency",
            [("sum by (dependency) (rate(mhras_degraded_screenings_total[5m]))", "{{dependency}}")],
            "reqps",
        ),
    ],
    "Models": [
        Chart(
            "Model inference time, p95",
            [
                (
                    "histogram_quantile(0.95, sum by (le, model)"
                    " (rate(mhras_model_inference_duration_seconds_bucket[5m])))",
                    "{{model}}",
                )
            ],
            "s",
        ),
        Chart(
            "Prediction distribution",
            [("sum by (risk_band) (rate(mhras_screenings_total[1h]))", "{{risk_band}}")],
            "reqps",
        ),
        Chart(
            "Drift score",
            [("max by (dataset) (mhras_drift_score)", "{{dataset}}")],
            "percentunit",
            "Share of what the release looks at, by feature importance, that has drifted. Requests "
            "and batches apart. HighDrift fires above 0.5.",
        ),
        Chart(
            "Modalities with a drift alarm",
            [("max by (dataset) (mhras_drift_alarms)", "{{dataset}}")],
            "short",
            "Modalities that differ from the training more than 19 of 20 windows without drift. "
            "DriftDetected fires above 0.",
        ),
        Chart(
            "AUROC where the outcome is known",
            [("min by (dataset) (mhras_outcome_auroc)", "{{dataset}}")],
            "percentunit",
            "DiscriminationLow fires below 0.65, the gate of a release.",
        ),
        Chart(
            "Outcomes observed over expected",
            [("max by (dataset) (mhras_calibration_ratio)", "{{dataset}}")],
            "short",
            "1 is calibrated. CalibrationOff fires outside 0.8 to 1.25.",
        ),
        Chart(
            "Average confidence",
            [("mhras:prediction_confidence:avg30m", "average")],
            "percentunit",
            "LowModelConfidence fires below 0.6 for an hour.",
        ),
        Chart(
            "Share of decisions that changed the band",
            [
                (
                    "sum by (decision) (increase(mhras_review_decisions_total[7d]))",
                    "{{decision}}",
                )
            ],
            "short",
            "Clinicians' decisions on the release's screenings: its performance in use.",
        ),
    ],
}

CLINICAL = {
    "Queue": [
        Chart(
            "Human review queue size",
            [("sum by (priority) (mhras:review_queue_size:max)", "{{priority}}")],
        ),
        Chart("Overdue", [("max by (priority) (mhras_review_queue_overdue)", "{{priority}}")]),
        Chart(
            "Cases queued for review",
            [
                (
                    "sum by (priority) (increase(mhras_human_reviews_queued_total[1h]))",
                    "{{priority}}",
                )
            ],
        ),
        Chart(
            "Decisions",
            [("sum by (decision) (increase(mhras_review_decisions_total[1d]))", "{{decision}}")],
        ),
    ],
    "Screenings": [
        Chart(
            "Risk score distribution",
            [
                (
                    f"histogram_quantile({quantile}, sum by (le)"
                    " (rate(mhras_risk_scores_bucket[1h])))",
                    name,
                )
                for quantile, name in ((0.25, "quarter"), (0.5, "median"), (0.9, "tenth above"))
            ],
            "short",
            "Scores order review; they are no diagnosis.",
        ),
        Chart(
            "Alert frequency",
            [("sum by (kind) (increase(mhras_alerts_triggered_total[1h]))", "{{kind}}")],
        ),
        Chart(
            "Crisis override usage",
            [("sum(increase(mhras_crisis_overrides_total[1d]))", "by a clinician's override")],
        ),
        Chart(
            "Screenings by band",
            [("sum by (risk_band) (increase(mhras_screenings_total[1h]))", "{{risk_band}}")],
        ),
    ],
}

COMPLIANCE = {
    "Record": [
        Chart(
            "Audit log volume",
            [("sum by (event_type) (increase(mhras_audit_events_total[1h]))", "{{event_type}}")],
        ),
        Chart(
            "Sealing failures",
            [("sum(increase(mhras_audit_sealing_failures_total[1h]))", "attempts")],
        ),
        Chart(
            "Access patterns",
            [("sum by (result) (increase(mhras_audit_events_total[1h]))", "{{result}}")],
            "short",
            "What was allowed, and what was refused.",
        ),
        Chart(
            "Requests refused",
            [
                (
                    'sum by (status) (increase(mhras_http_requests_total{status=~"401|403"}[1h]))',
                    "{{status}}",
                )
            ],
        ),
    ],
    "Consent and lineage": [
        Chart(
            "Consent verification rate",
            [
                (
                    "1 - sum(rate(mhras_consent_failures_total[1h]))"
                    " / sum(rate(mhras_consent_verifications_total[1h]))",
                    "verified",
                )
            ],
            "percentunit",
        ),
        Chart(
            "Data lineage: release behind the answers",
            [("count by (version) (mhras_release_info == 1)", "release {{version}}")],
            "short",
            "MLflow shows for each version its data, code, gates and approver.",
        ),
        Chart("Consents expiring in 7 days", [("max(mhras_consents_expiring)", "")], now=True),
        Chart(
            "Last backup",
            [
                (
                    "time() - max(kube_cronjob_status_last_successful_time"
                    '{cronjob="postgres-backup"})',
                    "",
                )
            ],
            "s",
            now=True,
        ),
    ],
}

DASHBOARDS = {
    "operations": ("MHRAS Operations", OPERATIONS),
    "ml": ("MHRAS ML", ML),
    "clinical": ("MHRAS Clinical", CLINICAL),
    "compliance": ("MHRAS Compliance", COMPLIANCE),
}


def render_dashboard(name: str) -> str:
    """Return the JSON of a dashboard by its key in DASHBOARDS."""
    title, rows = DASHBOARDS[name]
    dashboard = Dashboard(title).uid(f"mhras-{name}").tags(["mhras"]).refresh("1m").readonly()
    dashboard = dashboard.time("now-6h", "now").timezone("browser")
    for row, charts in rows.items():
        dashboard = dashboard.with_row(Row(row))
        for chart in charts:
            dashboard = dashboard.with_panel(_make_panel(chart))
    return json.dumps(dashboard.build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def _make_panel(chart: Chart) -> Any:
    kind, width = (Stat, QUARTER) if chart.now else (TimeSeries, HALF)
    panel = kind().title(chart.title).unit(chart.unit).datasource(PROMETHEUS)
    panel = panel.span(width).height(HEIGHT)
    if chart.description:
        panel = panel.description(chart.description)
    for expression, legend in chart.queries:
        query = Dataquery().expr(expression).legend_format(legend)
        panel = panel.with_target(query)
    return panel


def write_dashboards(folder: Path = FOLDER) -> None:
    for name in DASHBOARDS:
        (folder / f"{name}-dashboard.json").write_text(render_dashboard(name))


if __name__ == "__main__":
    write_dashboards()
