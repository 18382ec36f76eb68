"""The real entry point: `python -m serving`, with Feast's real reader and real signals."""

import os
import signal
import subprocess
import sys
import threading
import time

import httpx
import pytest
from sqlalchemy import create_engine, text

from infra.local.ports import choose_port
from tests.fixtures.api import make_headers
from tests.fixtures.server_process import make_environment, wait_until_alive


def test_missing_secrets_stop_the_start_with_a_hint():
    command = [sys.executable, "-m", "serving"]
    result = subprocess.run(
        command, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True
    )

    assert result.returncode == 2
    assert "JWT_SECRET_KEY: Field required (for example: openssl rand" in result.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_server_screens_counts_logs_and_stops(
    database_url, mlflow_url, production_version, grant, workers
):
    """Feast is not configured here, so its part is degraded; everything else is real."""
    individual, port, metrics_port = grant(), choose_port(18000), choose_port(19400)
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "serving", "--port", str(port), "--workers", workers],
        env=make_environment(database_url, mlflow_url) | {"METRICS_PORT": str(metrics_port)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert wait_until_alive(server, url).json()["status"] == "healthy"
        body = {"anonymized_id": individual, "survey_data": {"phq9": [1] * 8 + [0]}}
        headers = make_headers()
        with httpx.Client(base_url=url, trust_env=False) as client:
            answer = client.post("/screen", json=body, headers=headers).json()
            assert client.get("/metrics").status_code == 404
            exposed = client.get(f"http://127.0.0.1:{metrics_port}/metrics").text
    finally:
        server.send_signal(signal.SIGTERM)
        log, _ = server.communicate(timeout=40)

    assert answer["release"]["version"] == production_version
    assert answer["degraded"] == ["feature_store"]
    assert 'mhras_screenings_total{risk_band="' in exposed
    assert server.returncode in (0, -signal.SIGTERM)
    assert '"message":"screening request completed"' in log
    assert f'"anonymized_id":"{individual}"' in log
    assert "Traceback" not in log


def test_a_stop_under_load_loses_no_request(database_url, mlflow_url, production_version, grant):
    """What was recorded was answered, the other way round, and no connection was reset."""
    individuals, port, outcomes = [grant() for _ in range(8)], choose_port(18000), []
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "serving", "--port", str(port)],
        env=make_environment(database_url, mlflow_url)
        | {"RATE_LIMIT_PER_MINUTE": "10000", "RATE_LIMIT_PER_SECOND": "1000"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )

    def keep_asking(individual):
        body = {"anonymized_id": individual, "survey_data": {"phq9": [1] * 8 + [0]}}
        for _ in range(200):
            try:
                answer = httpx.post(
                    f"{url}/screen", json=body, headers=make_headers(), trust_env=False, timeout=30
                )
            except (httpx.ConnectError, httpx.ConnectTimeout):
                return
            except httpx.TransportError as error:
                outcomes.append(type(error).__name__)
                return
            outcomes.append(answer.status_code)

    threads = [threading.Thread(target=keep_asking, args=(one,)) for one in individuals]
    try:
        wait_until_alive(server, url)
        for thread in threads:
            thread.start()
        while len(outcomes) < 20:
            time.sleep(0.02)
    finally:
        server.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join()

    assert server.wait(40) in (0, -signal.SIGTERM)
    assert set(outcomes) == {200}
    with create_engine(database_url).connect() as connection:
        query = text("SELECT count(*) FROM predictions WHERE anonymized_id = ANY(:individuals)")
        recorded = connection.scalar(query, {"individuals": individuals})
        connection.engine.dispose()
    assert recorded == outcomes.count(200) >= 20
