import time

from tests.fixtures.api import MemoryReader, make_settings, run_app

NOWHERE = "postgresql://mhras:hidden@127.0.0.1:1/mhras"
NO_MLFLOW = "http://127.0.0.1:1"


def test_a_worker_without_database_and_release_is_alive_but_not_ready():
    settings = make_settings(NOWHERE, NO_MLFLOW)
    with run_app(settings, MemoryReader()) as client:
        health, readiness = client.get("/health"), client.get("/health/ready")

    assert (health.status_code, health.json()["status"]) == (200, "degraded")
    assert readiness.status_code == 503
    assert readiness.json()["database"] == "unreachable"
    assert readiness.json()["release"] == {"version": None, "problem": "MLflow: ConnectError"}
    assert "hidden" not in readiness.text


def test_a_working_service_is_healthy_and_ready(client, production_version):
    health, readiness = client.get("/health").json(), client.get("/health/ready").json()

    assert health["status"] == "healthy"
    assert abs(health["timestamp"] - time.time()) < 5
    assert readiness["status"] == "ready"
    assert readiness["release"] == {"version": production_version, "problem": None}
