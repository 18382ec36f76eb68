"""The Prefect server of `make run` refuses pages of other origins, and runs no given command."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from infra.local.ports import choose_port
from infra.local.prefect_api import POOL_TEMPLATE, make_server_settings, request_prefect
from infra.local.processes import answers

AUTH_STRING = "mhras:a password for tests"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Prefect server as `make run` starts it, and the variables of its clients."""
    port = choose_port(14200)
    url = f"http://127.0.0.1:{port}"
    home = tmp_path_factory.mktemp("prefect")
    variables = {
        "PREFECT_API_URL": f"{url}/api",
        "PREFECT_API_AUTH_STRING": AUTH_STRING,
        "PREFECT_HOME": str(home),
        **make_server_settings(AUTH_STRING, url),
    }
    program = Path(sys.executable).with_name("prefect")
    server = subprocess.Popen(
        [program, "server", "start", "--host", "127.0.0.1", "--port", str(port)],
        env=os.environ | variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: answers(f"{url}/api/health"))
    yield variables
    server.terminate()
    server.wait(timeout=30)


def wait_until(holds) -> None:
    import time

    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline, "the Prefect server did not start"
        time.sleep(0.5)


@pytest.mark.nightly
def test_a_page_of_another_origin_starts_nothing(environment: dict[str, str]) -> None:
    api = environment["PREFECT_API_URL"]
    attack = {"name": "pool", "type": "process"}
    headers = {"Origin": "https://attacker.example"}
    without_login = httpx.post(f"{api}/work_pools/", json=attack, headers=headers)
    user, _, password = AUTH_STRING.partition(":")
    without_token = httpx.post(
        f"{api}/work_pools/", json=attack, headers=headers, auth=(user, password)
    )
    preflight = httpx.options(
        f"{api}/work_pools/", headers=headers | {"Access-Control-Request-Method": "POST"}
    )

    assert without_login.status_code in (401, 403)
    assert without_token.status_code == 403
    assert "https://attacker.example" not in preflight.headers.get(
        "Access-Control-Allow-Origin", ""
    )


@pytest.mark.nightly
def test_a_login_with_a_token_is_answered(environment: dict[str, str]) -> None:
    pool = {"name": "local", "type": "process", "base_job_template": POOL_TEMPLATE}

    assert request_prefect(environment, "POST", "work_pools/", pool).status_code == 201


def test_a_flow_run_can_override_neither_command_nor_variables_nor_folder() -> None:
    from prefect.workers.process import ProcessJobConfiguration

    attack = {"command": "sh -c evil", "env": {"LD_PRELOAD": "evil.so"}, "working_dir": "/evil"}
    plain = ProcessJobConfiguration().model_dump()
    template = ProcessJobConfiguration.from_template_and_values

    import asyncio

    made = asyncio.run(template(POOL_TEMPLATE, attack))

    assert (made.command, made.working_dir) == (plain["command"], plain["working_dir"])
    assert "LD_PRELOAD" not in made.env
