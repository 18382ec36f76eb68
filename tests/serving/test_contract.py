"""What the API answers is what its OpenAPI document says, whatever it is sent (schemathesis)."""

import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from infra.local.ports import choose_port
from serving.auth.tokens import issue_token
from serving.roles import Role
from tests.fixtures.api import JWT_SECRET
from tests.fixtures.server_process import HIGH_RATES, make_environment, wait_until_alive

#: Revoking would end the token the run lives on; the registry takes seconds for each change;
#: their own tests send them what is odd.
LEFT_OUT = r"/tokens/revoke|/models/rollout|/models/rollback"
REQUESTS_PER_SECOND = 150


@pytest.fixture(scope="module")
def address(database_url, mlflow_url, production_version):
    port = choose_port(18200)
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "serving", "--port", str(port), "--workers", "1"],
        env=make_environment(database_url, mlflow_url) | HIGH_RATES,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )
    wait_until_alive(server, url)
    yield url
    server.terminate()
    server.wait(40)


def send_odd_requests(
    address: str, examples: int, phases: str, folder: Path
) -> subprocess.CompletedProcess:
    token = issue_token(JWT_SECRET, "contract", Role.ADMIN, timedelta(minutes=60))
    program = str(Path(sys.executable).with_name("schemathesis"))
    options = [
        *("--header", f"Authorization: Bearer {token}", "--exclude-path-regex", LEFT_OUT),
        *("--checks", "not_a_server_error,status_code_conformance,content_type_conformance"),
        *("--max-examples", str(examples), "--phases", phases),
        *("--rate-limit", f"{REQUESTS_PER_SECOND}/s", "--request-timeout", "30"),
        *("--continue-on-failure", "--generation-database", ":memory:", "--no-color"),
        *("--suppress-health-check", "all", "--warnings", "off", "--seed", "7"),
    ]
    command = [program, "run", f"{address}/openapi.json", *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


def count_requests(address: str) -> int:
    exposed = httpx.get(f"{address}/metrics", trust_env=False).text
    counts = re.findall(r"^mhras_http_requests_total\{.*\} (\S+)$", exposed, re.MULTILINE)
    return int(sum(map(float, counts)))


@pytest.mark.parametrize(
    ("examples", "phases", "requests"),
    [
        (3, "examples,fuzzing", 100),
        # Coverage makes a request of every wrong value of every field: thousands for some bodies.
        # The stateful phase calls operations with what others returned.
        pytest.param(1300, "examples,coverage,fuzzing,stateful", 50_000, marks=pytest.mark.nightly),
    ],
)
def test_no_request_is_answered_by_an_error_of_ours_or_undocumented(
    address, tmp_path, capsys, examples, phases, requests
):
    before = count_requests(address)
    found = send_odd_requests(address, examples, phases, tmp_path)
    sent = count_requests(address) - before
    with capsys.disabled():
        print(f"\n{sent} odd requests ({phases})")  # noqa: T201

    assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-2000:]
    assert sent > requests
