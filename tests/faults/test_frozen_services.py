"""Each dependency stops for 15 s and goes on: answers come in time, and service comes back.

The deadline of an answer is a promise of the product (`SCREENING_TIMEOUT`), so it is asserted.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest
from sqlalchemy import Connection, text

from tests.fixtures.api import LOW_ANSWERS, make_headers, mlflow_url, production_version, releases
from tests.fixtures.attack_load import (
    CRISIS_ANSWERS,
    Attempt,
    Load,
    check_books,
    keep_screening,
    send,
    verify_chain,
)
from tests.fixtures.attacked_stack import AttackedStack, run_attacked_stack
from tests.fixtures.frozen import frozen, list_listeners, list_server_processes
from tests.fixtures.pooler import needs_pooler

__all__ = ["mlflow_url", "production_version", "releases"]

pytestmark = [pytest.mark.nightly, needs_pooler]

FROZEN_SECONDS = 15
SCREENING_TIMEOUT = 5.0
GRACE_SECONDS = 0.5
BACK_WITHIN_SECONDS = 5.0
CALLERS = 12


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory, mlflow_url: str, production_version: int
) -> Iterator[AttackedStack]:
    folder = tmp_path_factory.mktemp("frozen")
    with run_attacked_stack(folder, mlflow_url, pooled=True) as stack:
        yield stack


def list_mlflow(stack: AttackedStack) -> list[psutil.Process]:
    return list_listeners(int(stack.mlflow_url.rpartition(":")[2]))


def list_pooler(stack: AttackedStack) -> list[psutil.Process]:
    assert stack.pooler is not None
    return list_listeners(stack.pooler.port)


def list_database(stack: AttackedStack) -> list[psutil.Process]:
    return list_server_processes(stack.postgres)


SERVICES: dict[str, Callable[[AttackedStack], list[psutil.Process]]] = {
    "mlflow": list_mlflow,
    "pooler": list_pooler,
    "postgresql": list_database,
}


def ask_for_crisis(stack: AttackedStack, people: Iterator[str], until: float) -> list[Attempt]:
    """Screen people in crisis one after the other, without keys."""
    attempts = []
    with httpx.Client(base_url=stack.url, trust_env=False, timeout=30) as client:
        while time.monotonic() < until:
            survey = {"phq9": CRISIS_ANSWERS}
            body = {"anonymized_id": next(people), "survey_data": survey}
            attempts.append(send(client, body, make_headers())[0])
            time.sleep(0.2)
    return attempts


def assert_in_time(attempts: list[Attempt]) -> None:
    late = [one for one in attempts if one.seconds > SCREENING_TIMEOUT + GRACE_SECONDS]
    assert late == [], f"{len(late)} of {len(attempts)} answers came late: {late[:5]}"


def assert_back(load: Load, thawed: float) -> None:
    """Assert that a screening sent after the thaw was answered within BACK_WITHIN_SECONDS."""
    done = [one.ended for one in load.attempts if one.status == 200 and one.ended > thawed]
    assert done, "no screening was answered after the thaw"
    assert min(done) - thawed < BACK_WITHIN_SECONDS


@pytest.mark.parametrize("service", SERVICES)
def test_every_answer_comes_in_time_and_service_comes_back(
    stack: AttackedStack, service: str, capsys: pytest.CaptureFixture[str]
) -> None:
    people, crises = stack.grant(20_000), iter(stack.grant(2_000))
    processes = SERVICES[service](stack)
    with keep_screening(stack.url, people, CALLERS) as load, ThreadPoolExecutor(1) as pool:
        time.sleep(3)
        with frozen(processes, FROZEN_SECONDS) as until:
            asking = pool.submit(ask_for_crisis, stack, crises, until + 5)
        thawed = time.monotonic()
        time.sleep(2 * BACK_WITHIN_SECONDS)
    stack.wait_until_ready()
    attempts = [*load.attempts, *asking.result()]
    counts = check_books(stack.owner, load)
    found = verify_chain(stack.url)
    with capsys.disabled():
        slowest = max(one.seconds for one in attempts)
        print(f"\n{service} frozen for {FROZEN_SECONDS} s: {load.count()}, {counts}, "  # noqa: T201
              f"slowest {slowest:.2f} s")  # fmt: skip

    assert_in_time(attempts)
    assert {one.status for one in attempts} <= {200, 409, 503, 504}
    assert_back(load, thawed)
    assert found["intact"], found["findings"]
    if service == "mlflow":
        assert {one.status for one in attempts} == {200}


LOCKED = ("predictions", "idempotency_keys", "audit_log", "review_items", "consent")


@pytest.mark.parametrize("table", LOCKED)
def test_a_locked_table_delays_no_answer_and_service_comes_back(
    stack: AttackedStack, table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a slow change of the schema holds it."""
    with keep_screening(stack.url, stack.grant(20_000), CALLERS) as load:
        time.sleep(2)
        with stack.owner.connect() as connection, connection.begin():
            lock(connection, table)
            time.sleep(FROZEN_SECONDS)
        freed = time.monotonic()
        time.sleep(2 * BACK_WITHIN_SECONDS)
    stack.wait_until_ready()
    counts = check_books(stack.owner, load)
    with capsys.disabled():
        slowest = max(one.seconds for one in load.attempts)
        print(f"\n{table} locked for {FROZEN_SECONDS} s: {load.count()}, {counts}, "  # noqa: T201
              f"slowest {slowest:.2f} s")  # fmt: skip

    assert_in_time(load.attempts)
    assert {one.status for one in load.attempts} <= {200, 409, 503, 504}
    assert_back(load, freed)


def lock(connection: Connection, table: str) -> None:
    connection.execute(text(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))


def test_a_crisis_is_answered_while_others_overload_the_workers(
    stack: AttackedStack, capsys: pytest.CaptureFixture[str]
) -> None:
    """Five times what the workers take on: others are refused, crises are not."""
    callers = 5 * 2 * int(FAST_LIMIT["MAX_CONCURRENT_SCREENINGS"])
    stack.stop_api()
    stack.variables = FAST_LIMIT
    stack.start_api()
    sent, stored = stack.grant(150), stack.grant(150)
    stack.store_crises(stored)
    with keep_screening(stack.url, stack.grant(50_000), callers) as load:
        time.sleep(2)
        begun = time.monotonic()
        with ThreadPoolExecutor(6) as pool:
            asked = [pool.submit(ask_once, stack, one, CRISIS_ANSWERS) for one in sent]
            asked += [pool.submit(ask_once, stack, one, LOW_ANSWERS) for one in stored]
            crises = [one.result() for one in asked]
        during = [one for one in load.attempts if one.ended > begun]
    shed = sum(one.status == 503 for one in during)
    with capsys.disabled():
        print(f"\n{callers} callers, limit {FAST_LIMIT}: {load.count()}, "  # noqa: T201
              f"{len(crises)} crises, {shed} others shed meanwhile")  # fmt: skip

    assert shed > 0, "the workers were not overloaded"
    assert [status for status, _ in crises if status != 200] == []
    assert {band for _, band in crises} == {"critical"}


#: A worker takes on little, so that a few callers overload it.
FAST_LIMIT = {"MAX_CONCURRENT_SCREENINGS": "2"}


def ask_once(stack: AttackedStack, person: str, phq9: list[int]) -> tuple[int, str]:
    body = {"anonymized_id": person, "survey_data": {"phq9": phq9}}
    answer = httpx.post(
        f"{stack.url}/screen", json=body, headers=make_headers(), trust_env=False, timeout=30
    )
    return answer.status_code, answer.json().get("risk_band", "")
