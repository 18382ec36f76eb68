"""kill -9 under load: what was acknowledged exists once, and each screening is audited once."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fixtures.api import mlflow_url, production_version, releases
from tests.fixtures.attack_load import check_books, keep_screening, verify_chain
from tests.fixtures.attacked_stack import AttackedStack, kill, run_attacked_stack, wait_until
from tests.fixtures.frozen import find_postmaster
from tests.fixtures.pooler import needs_pooler

__all__ = ["mlflow_url", "production_version", "releases"]

pytestmark = [pytest.mark.nightly, needs_pooler]

KILLS = 50
#: Seconds of load between a recovery and the next kill.
CALM_SECONDS = 1.0


@pytest.fixture
def stack(tmp_path: Path, mlflow_url: str, production_version: int) -> Iterator[AttackedStack]:
    with run_attacked_stack(tmp_path, mlflow_url, pooled=True) as stack:
        yield stack


def kill_worker(stack: AttackedStack) -> None:
    before = stack.list_workers()
    kill(before[0])
    wait_until(
        lambda: len(stack.list_workers()) == 2 and before[0] not in stack.list_workers(),
        "the worker is not replaced",
    )


def kill_backend(stack: AttackedStack) -> None:
    """Kill a process of PostgreSQL that serves the API: the server ends all others and recovers."""
    kill(stack.list_backends()[0])


def kill_postmaster(stack: AttackedStack) -> None:
    kill(find_postmaster(stack.postgres))
    stack.restart_postgres()


def kill_pooler(stack: AttackedStack) -> None:
    assert stack.pooler is not None
    stack.pooler.kill()
    stack.pooler.start()


VICTIMS: tuple[Callable[[AttackedStack], None], ...] = (
    *(kill_worker, kill_backend, kill_postmaster, kill_pooler),
)


def test_kills_under_load_lose_and_double_nothing(
    stack: AttackedStack, capsys: pytest.CaptureFixture[str]
) -> None:
    people = stack.grant(100_000)
    with keep_screening(stack.url, people) as load:
        for number in range(KILLS):
            done = len(load.acknowledged)
            wait_until(lambda done=done: len(load.acknowledged) > done, "no screening is answered")
            time.sleep(CALM_SECONDS)
            VICTIMS[number % len(VICTIMS)](stack)
        done = len(load.acknowledged)
        wait_until(lambda: len(load.acknowledged) > done + 10, "no screening after the last kill")
    stack.wait_until_ready()
    counts = check_books(stack.owner, load)
    found = verify_chain(stack.url)
    with capsys.disabled():
        print(f"\n{KILLS} kills: {counts}, attempts {load.count()}, chain {found['rows']} rows")  # noqa: T201

    assert found["intact"], found["findings"]
    assert counts["acknowledged"] > 10 * KILLS
