"""The smoke tests themselves: against the running API, and against what is not as it should be."""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from infra.local.ports import choose_port
from tests.fixtures.api import JWT_SECRET
from tests.fixtures.server_process import make_environment, wait_until_alive

SCRIPT = Path(__file__).parents[1] / "smoke_tests.py"


@pytest.fixture(scope="module")
def api(database_url, mlflow_url, production_version):
    port = choose_port(18100)
    environment = make_environment(database_url, mlflow_url) | {"MHRAS_ENV": "development"}
    server = subprocess.Popen(
        [sys.executable, "-m", "serving", "--port", str(port)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        text=True,
    )
    url = f"http://127.0.0.1:{port}"
    wait_until_alive(server, url)
    yield url
    server.terminate()
    server.wait(timeout=40)


def run_smoke(url: str, env: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), f"--env={env}", f"--api-url={url}"],
        env={"NO_PROXY": "*"} | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_tokens_it_says_which_to_set() -> None:
    finished = run_smoke("http://127.0.0.1:9", "staging")
    assert finished.returncode == 2
    assert "MHRAS_SMOKE_CLINICIAN_TOKEN" in finished.stderr


def test_an_api_that_is_away_fails_every_check() -> None:
    finished = run_smoke("http://127.0.0.1:9", "development", JWT_SECRET_KEY=JWT_SECRET)
    assert finished.returncode == 1
    assert "✗ health" in finished.stdout
    assert "1 passed" in finished.stdout  # https is not asked of development


def test_a_deployment_as_it_should_be_passes_and_keeps_nobody(api: str) -> None:
    finished = run_smoke(api, "development", JWT_SECRET_KEY=JWT_SECRET)
    assert finished.returncode == 0, finished.stdout
    assert "0 failed" in finished.stdout
    assert httpx.get(f"{api}/health", trust_env=False).is_success


def test_a_deployment_that_is_another_than_it_is_taken_for_fails(api: str) -> None:
    finished = run_smoke(api, "production", JWT_SECRET_KEY=JWT_SECRET)
    assert finished.returncode == 1
    assert "MHRAS_ENV=development" in finished.stdout
    assert "not asked over https" in finished.stdout


def test_a_forged_token_passes_no_check_that_needs_one(api: str) -> None:
    finished = run_smoke(api, "development", JWT_SECRET_KEY="another-secret-that-is-long-enough")
    assert finished.returncode == 1
    assert "✗ login" in finished.stdout
