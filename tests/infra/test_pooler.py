"""Debian's pgbouncer in session mode between the API and PostgreSQL, with our parameters."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psycopg2
import pytest
from sqlalchemy import Engine, create_engine, text

from infra.local.ports import choose_port
from infra.local.postgres import PostgresServer
from tests.fixtures.api import make_headers
from tests.fixtures.pooler import POOL_SIZE, needs_pooler, run_pooler
from tests.fixtures.server_process import make_environment, wait_until_alive

pytestmark = [pytest.mark.nightly, needs_pooler]


@pytest.fixture(scope="module")
def pooled_url(postgres: PostgresServer, application_url: str) -> Iterator[str]:
    with run_pooler(postgres, application_url, "pooler") as pooler:
        yield pooler.url


@pytest.fixture
def api(pooled_url: str, mlflow_url: str, production_version: int) -> Iterator[str]:
    """Two workers of the API behind the pooler, with a loaded release."""
    port = choose_port(18500)
    url = f"http://127.0.0.1:{port}"
    environment = make_environment(pooled_url, mlflow_url) | {
        "RATE_LIMIT_PER_MINUTE": "10000",
        "RATE_LIMIT_PER_SECOND": "1000",
    }
    command = [sys.executable, "-m", "serving", "--port", str(port), "--workers", "2"]
    server = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until_alive(server, url)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=40)


def test_the_api_hears_of_changes_and_answers_many_at_once(
    api: str,
    pooled_url: str,
    engine: Engine,
    grant: Callable[..., str],
) -> None:
    """LISTEN needs a session of its own: a pooler by transaction would swallow it."""
    people = [grant() for _ in range(10)]
    wait_until_fresh(api)

    with httpx.Client(trust_env=False, timeout=60) as client, ThreadPoolExecutor(32) as pool:
        codes = list(pool.map(lambda one: screen(client, api, one), people * 40))

    # Beyond what two workers take on at once they say 503 with guidance; nothing fails otherwise.
    assert set(codes) <= {200, 503}, set(codes)
    assert codes.count(200) > len(codes) / 2
    assert count_screenings(engine, people) >= codes.count(200)
    assert count_server_connections(engine) <= POOL_SIZE + 10
    wait_until_fresh(api)
    revoke(engine, people[0])
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with httpx.Client(trust_env=False, timeout=60) as client:
            if screen(client, api, people[0]) == 403:
                return
        time.sleep(0.2)
    pytest.fail("a withdrawn consent still counts")


def screen(client: httpx.Client, api: str, person: str) -> int:
    body = {"anonymized_id": person, "survey_data": {"phq9": [1] * 9}}
    answer = client.post(f"{api}/screen", json=body, headers=make_headers())
    return answer.status_code


def wait_until_fresh(api: str) -> None:
    until = time.monotonic() + 60
    said = "nothing"
    while time.monotonic() < until:
        said = httpx.get(f"{api}/health/ready", trust_env=False).text
        if '"status":"ready"' in said and "changes are not heard of" not in said:
            return
        time.sleep(0.3)
    pytest.fail(f"the API is not ready behind the pooler: {said}")


def count_screenings(engine: Engine, people: list[str]) -> int:
    query = text("SELECT count(*) FROM predictions WHERE anonymized_id = ANY(:people)")
    with engine.connect() as connection:
        return int(connection.scalar(query, {"people": people}))


def count_server_connections(engine: Engine) -> int:
    query = text("SELECT count(*) FROM pg_stat_activity WHERE usename = 'mhras_api'")
    with engine.connect() as connection:
        return int(connection.scalar(query))


def revoke(engine: Engine, person: str) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE consent SET withdrawn_at = now() WHERE anonymized_id = :one"),
            {"one": person},
        )


def test_a_session_behind_the_pooler_keeps_what_it_listens_for(pooled_url: str) -> None:
    listening = psycopg2.connect(pooled_url.replace("+psycopg2", ""))
    listening.autocommit = True
    with listening.cursor() as cursor:
        cursor.execute("LISTEN mhras_pooler_test")
    other = create_engine(pooled_url)
    with other.begin() as connection:
        connection.execute(text("NOTIFY mhras_pooler_test, 'heard'"))
    other.dispose()
    until = time.monotonic() + 20
    while time.monotonic() < until and not listening.notifies:
        listening.poll()
        time.sleep(0.1)
    assert [one.payload for one in listening.notifies] == ["heard"]
    listening.close()


def test_the_role_that_the_pooler_lets_in_is_the_api_s_alone(pooled_url: str) -> None:
    with pytest.raises(psycopg2.OperationalError, match="authentication failed"):
        psycopg2.connect(pooled_url.replace("+psycopg2", "").replace("mhras_api", "postgres"))
