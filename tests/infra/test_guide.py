"""What the deployment guide's tables name is in the rendered overlays, with its numbers."""

import pytest

from serving.settings import Settings
from tests.infra.cluster_objects import (
    ENVIRONMENTS,
    find,
    find_job,
    get_app,
    get_containers,
    get_main_container,
    get_template,
    list_secrets,
    list_workloads,
    resolve_environment,
)

CONFIGURATION = {
    "MHRAS_LOG_FORMAT": "json",
    "RISK_THRESHOLD_LOW": "25",
    "RISK_THRESHOLD_MODERATE": "50",
    "RISK_THRESHOLD_HIGH": "75",
    "HUMAN_REVIEW_THRESHOLD": "75",
    "DRIFT_THRESHOLD": "0.3",
    "MODEL_CACHE_SIZE": "5",
    "REQUEST_TIMEOUT": "10",
    "SCREENING_TIMEOUT": "5",
    "ENABLE_SHAP_EXPLANATIONS": "true",
    "ENABLE_COUNTERFACTUALS": "true",
    "ENABLE_RULE_EXTRACTION": "false",
    "ENABLE_DRIFT_MONITORING": "true",
    "ENABLE_HUMAN_REVIEW_QUEUE": "true",
    "ENABLE_CRISIS_OVERRIDE": "true",
}
RESOURCES = {
    "development": ("500m", "1000m", "1Gi", "2Gi"),
    "staging": ("1000m", "2000m", "2Gi", "4Gi"),
    "production": ("2000m", "4000m", "4Gi", "8Gi"),
}
PROBES = {
    "startupProbe": (0, 5, 3, 30),
    "readinessProbe": (10, 5, 3, 2),
    "livenessProbe": (30, 10, 5, 3),
}
#: The guide's names of secrets, and ours beside them, by what the API reads them as.
SECRETS = {
    "DATABASE_URL": "app_database_url",
    "JWT_SECRET_KEY": "jwt_secret_key",
    "ANONYMIZATION_SALT": "anonymization_salt",
    "AUDIT_SIGNING_KEY": "audit_signing_key",
    "RELEASE_PUBLIC_KEYS": "release_public_keys",
    "MLFLOW_TRACKING_PASSWORD": "mlflow_reader_password",
    "MLFLOW_PROMOTER_PASSWORD": "mlflow_promoter_password",
}
each_environment = pytest.mark.parametrize("environment", ENVIRONMENTS)


def get_api(environment: str) -> dict:
    (deployment,) = find(environment, "Deployment", "mhras-api")
    return deployment


def read_config(environment: str) -> dict[str, str]:
    return {
        name: value
        for config in ("mhras-config", "feast-config")
        for one in find(environment, "ConfigMap", config)
        for name, value in one["data"].items()
    }


@each_environment
def test_every_variable_of_the_guide_is_configured(environment: str) -> None:
    config = read_config(environment)
    assert config["MHRAS_ENV"] == environment
    assert config["MHRAS_LOG_LEVEL"] == ("DEBUG" if environment == "development" else "INFO")
    assert config.items() >= CONFIGURATION.items()
    assert config["MODEL_STORAGE_URL"]


@each_environment
def test_every_secret_of_the_guide_reaches_the_api(environment: str) -> None:
    container = get_main_container(get_api(environment))
    given = {
        one["name"]: one["valueFrom"]["secretKeyRef"]
        for one in container["env"]
        if "valueFrom" in one
    }
    for variable, key in SECRETS.items():
        assert given[variable] == {"name": "mhras-secrets", "key": key}
    made = {one["metadata"]["name"]: one["stringData"] for one in list_secrets(environment)}
    assert made["mhras-flow-secrets"]["ALERT_WEBHOOK_URL"] == "given"
    assert made["alertmanager-secrets"]["slack_webhook_url"] == "given"


@each_environment
def test_what_a_pod_of_the_api_gets_is_what_the_settings_accept(
    environment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in resolve_environment(environment, get_api(environment)).items():
        monkeypatch.setenv(name, value)

    settings = Settings()

    assert settings.env == environment
    assert "mhras_api" in settings.database_url.get_secret_value()
    assert settings.mlflow_login is not None


@each_environment
def test_only_migrations_and_flows_hold_the_owner_s_login(environment: str) -> None:
    holders = {
        get_app(workload)
        for workload in list_workloads(environment)
        for one in get_main_container(workload).get("env", [])
        if one.get("valueFrom", {}).get("secretKeyRef", {}).get("name") == "mhras-owner-secrets"
    }
    given = resolve_environment(environment, find_job(environment, "mhras-migration"))
    assert holders == {"mhras-migration"}
    assert given["DATABASE_URL"].startswith("postgresql://mhras:")
    assert given["APP_DATABASE_URL"].startswith("postgresql://mhras_api:")


@each_environment
def test_the_api_has_the_guide_s_resources_probes_and_user(environment: str) -> None:
    container = get_main_container(get_api(environment))
    resources = container["resources"]
    requests, limits = resources["requests"], resources["limits"]
    assert (requests["cpu"], limits["cpu"], requests["memory"], limits["memory"]) == RESOURCES[
        environment
    ]
    for name, numbers in PROBES.items():
        probe = container[name]
        assert probe["httpGet"] == {"path": "/health", "port": "http"}
        fields = ("initialDelaySeconds", "periodSeconds", "timeoutSeconds", "failureThreshold")
        assert tuple(probe[field] for field in fields) == numbers
    # The guide's port; metrics have one of their own, which no ingress leads to.
    assert {"name": "http", "containerPort": 8000} in container["ports"]
    assert {port["name"] for port in container["ports"]} == {"http", "metrics"}


@pytest.mark.parametrize(
    ("environment", "least", "most"),
    [("development", 1, 2), ("staging", 3, 10), ("production", 3, 10)],
)
def test_the_autoscaler_behaves_as_the_guide_says(environment: str, least: int, most: int) -> None:
    (scaler,) = find(environment, "HorizontalPodAutoscaler", "mhras-api-hpa")
    spec = scaler["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (least, most)
    targets = {m["resource"]["name"]: m["resource"]["target"] for m in spec["metrics"]}
    assert targets["cpu"]["averageUtilization"] == 70
    assert targets["memory"]["averageUtilization"] == 80
    down, up = spec["behavior"]["scaleDown"], spec["behavior"]["scaleUp"]
    assert down["stabilizationWindowSeconds"] == 300
    assert down["policies"] == [{"type": "Percent", "value": 50, "periodSeconds": 60}]
    assert (up["stabilizationWindowSeconds"], up["selectPolicy"]) == (0, "Max")
    assert up["policies"] == [
        {"type": "Percent", "value": 100, "periodSeconds": 30},
        {"type": "Pods", "value": 2, "periodSeconds": 30},
    ]


@each_environment
def test_the_edge_limits_rates_and_ends_tls(environment: str) -> None:
    (ingress,) = find(environment, "Ingress", "mhras-ingress")
    annotations = ingress["metadata"]["annotations"]
    prefix = "nginx.ingress.kubernetes.io"
    assert annotations[f"{prefix}/limit-rpm"] == "100"
    assert annotations[f"{prefix}/limit-rps"] == "10"
    assert annotations[f"{prefix}/limit-burst-multiplier"] == "2"
    assert ingress["spec"]["tls"] == [
        {"hosts": ["api.mhras.example.com"], "secretName": "mhras-tls"}
    ]


@each_environment
def test_a_node_or_a_zone_that_goes_leaves_pods_elsewhere(environment: str) -> None:
    spread = get_template(get_api(environment))["spec"]["topologySpreadConstraints"]
    assert {one["topologyKey"] for one in spread} == {
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    }
    (budget,) = find(environment, "PodDisruptionBudget", "mhras-api")
    assert budget["spec"]["maxUnavailable"] == 1


def test_production_has_a_replica_of_its_database_and_sessions_for_listen() -> None:
    (cluster,) = find("production", "Cluster")
    assert cluster["spec"]["instances"] >= 2
    (pooler,) = find("production", "Pooler")
    assert pooler["spec"]["pgbouncer"]["poolMode"] == "session"
    assert not find("production", "StatefulSet", "postgres")


@each_environment
def test_a_backup_runs_daily_at_two(environment: str) -> None:
    (cron,) = find(environment, "CronJob", "postgres-backup")
    assert cron["spec"]["schedule"] == "0 2 * * *"
    assert cron["spec"]["concurrencyPolicy"] == "Forbid"


@each_environment
def test_metrics_are_kept_thirty_days(environment: str) -> None:
    (prometheus,) = find(environment, "StatefulSet", "prometheus")
    assert "--storage.tsdb.retention.time=30d" in get_containers(prometheus)[0]["args"]
