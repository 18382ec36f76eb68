"""Who comes in from outside, how long is waited for them, and what they never see."""

import pytest

from tests.infra.cluster_objects import (
    find,
    get_main_container,
)

NGINX = "nginx.ingress.kubernetes.io"
#: The longest the API works on a path, in seconds (serving/releases/registry_commands.py).
LONGEST = {"/": 10, "/models": 70}


@pytest.mark.parametrize("deployment", ["development", "staging", "production", "managed"])
def test_the_ingress_waits_as_long_as_the_api_works(deployment: str) -> None:
    waits = {
        path["path"]: int(one["metadata"]["annotations"].get(f"{NGINX}/proxy-read-timeout", 60))
        for one in find(deployment, "Ingress")
        for rule in one["spec"]["rules"]
        if rule["host"].startswith("api.")
        for path in rule["http"]["paths"]
    }
    for path, seconds in LONGEST.items():
        assert waits[path] > seconds, path


def test_the_gateway_waits_as_long_as_the_api_works() -> None:
    (route,) = find("gateway", "HTTPRoute", "mhras-api")
    waits = {
        rule["matches"][0]["path"]["value"]: int(rule["timeouts"]["request"].rstrip("s"))
        for rule in route["spec"]["rules"]
        if "timeouts" in rule
    }
    for path, seconds in LONGEST.items():
        assert waits[path] > seconds, path


@pytest.mark.parametrize("deployment", ["development", "staging", "production", "managed"])
def test_metrics_are_refused_at_the_ingress(deployment: str) -> None:
    for one in find(deployment, "Ingress"):
        for rule in one["spec"]["rules"]:
            paths = {path["path"] for path in rule["http"]["paths"]}
            if rule["host"].startswith("api.") and "/metrics" in paths:
                denied = one["metadata"]["annotations"][f"{NGINX}/denylist-source-range"]
                assert denied == "0.0.0.0/0,::/0"
                assert paths == {"/metrics"}
                return
    pytest.fail("no Ingress has the path /metrics, so the one for / passes it on")


def test_metrics_are_refused_at_the_gateway() -> None:
    (route,) = find("gateway", "HTTPRoute", "mhras-api")
    (rule,) = [
        one
        for one in route["spec"]["rules"]
        if one["matches"][0]["path"] == {"type": "PathPrefix", "value": "/metrics"}
    ]
    assert "backendRefs" not in rule
    (refuse,) = find("gateway", "HTTPRouteFilter", rule["filters"][0]["extensionRef"]["name"])
    assert refuse["spec"]["directResponse"]["statusCode"] == 403


@pytest.mark.parametrize("deployment", ["staging", "production", "managed"])
def test_people_reach_mlflow_and_prefect_by_a_name_and_after_signing_in(deployment: str) -> None:
    leads = {
        rule["host"]: rule["http"]["paths"][0]["backend"]["service"]["name"]
        for one in find(deployment, "Ingress")
        for rule in one["spec"]["rules"]
    }
    # MLflow has logins of its own; Prefect has one password for all.
    assert leads["mlflow.mhras.example.com"] == "mlflow"
    assert leads["prefect.mhras.example.com"] == "oauth2-proxy"
    (mlflow,) = find(deployment, "Deployment", "mlflow")
    names = {one["name"]: one.get("value") for one in get_main_container(mlflow)["env"]}
    assert "mlflow.mhras.example.com" in names["MLFLOW_SERVER_NAMES"].split(",")
    assert names["MLFLOW_SERVER_CORS_ORIGINS"] == "https://mlflow.mhras.example.com"
