"""With METRICS_PORT, metrics are on that port and nothing else is."""

import pytest
from fastapi.testclient import TestClient

from tests.fixtures.api import MemoryReader, make_settings, run_app

PORT = 9464


@pytest.fixture(scope="module")
def app(database_url, mlflow_url):
    with run_app(make_settings(database_url, mlflow_url, metrics_port=PORT), MemoryReader()) as one:
        yield one.app


@pytest.mark.parametrize("path", ["/metrics", "/metrics/"])
def test_the_port_of_the_api_serves_no_metrics(app, path):
    answer = TestClient(app, base_url="http://api.test:8000").get(path)

    assert answer.status_code == 404
    assert "mhras_" not in answer.text
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["/health", "/screen", "/console", "/openapi.json", "/"])
def test_the_port_of_metrics_serves_nothing_else(app, path):
    client = TestClient(app, base_url=f"http://api.test:{PORT}")

    assert client.get(path).status_code == 404
    assert client.post(path).status_code == 404


def test_the_port_of_metrics_serves_them(app):
    answer = TestClient(app, base_url=f"http://api.test:{PORT}").get("/metrics")

    assert answer.status_code == 200
    assert "mhras_http_requests_total" in answer.text
