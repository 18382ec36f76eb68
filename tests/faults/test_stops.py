"""Stops under load reset no connection before its answer; what was answered is kept."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from sqlalchemy import text

from tests.fixtures.api import LOW_ANSWERS, make_headers, mlflow_url, production_version, releases
from tests.fixtures.attacked_stack import AttackedStack, run_attacked_stack, wait_until

__all__ = ["mlflow_url", "production_version", "releases"]

pytestmark = pytest.mark.nightly

STOPS = 20
CALLERS = 16


@pytest.fixture
def stack(tmp_path: Path, mlflow_url: str, production_version: int) -> Iterator[AttackedStack]:
    with run_attacked_stack(tmp_path, mlflow_url) as stack:
        yield stack


def screen_until_refused(
    stack: AttackedStack, people: Iterator[str], *, keeps: bool, outcomes: list[str]
) -> None:
    """Screen over one connection, or one for each request, until no connection is taken."""
    headers = make_headers()
    if not keeps:
        headers["Connection"] = "close"
    with httpx.Client(base_url=stack.url, trust_env=False, timeout=30) as client:
        while True:
            body = {"anonymized_id": next(people), "survey_data": {"phq9": LOW_ANSWERS}}
            try:
                answer = client.post("/screen", json=body, headers=headers)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                return
            except httpx.TransportError as error:
                outcomes.append(type(error).__name__)
                return
            outcomes.append(str(answer.status_code))


def test_no_stop_resets_a_connection_before_its_answer(
    stack: AttackedStack, capsys: pytest.CaptureFixture[str]
) -> None:
    total: Counter[str] = Counter()
    for number in range(STOPS):
        if number:
            stack.start_api()
        total += stop_under_load(stack, interrupted=number % 2 == 1)
    with stack.owner.connect() as connection:
        recorded = connection.scalar(text("SELECT count(*) FROM predictions"))
    with capsys.disabled():
        print(f"\n{STOPS} stops of two workers, {CALLERS} callers: {dict(total)}")  # noqa: T201

    assert set(total) == {"200"}
    assert recorded == total["200"] > 10 * STOPS


def stop_under_load(stack: AttackedStack, *, interrupted: bool) -> Counter[str]:
    """Stop the API by SIGTERM, or as a terminal's Ctrl-C does; return what callers received."""
    outcomes: list[str] = []
    people = iter(stack.grant(5_000))
    threads = [
        threading.Thread(
            target=screen_until_refused,
            args=(stack, people),
            kwargs={"keeps": number % 2 == 0, "outcomes": outcomes},
        )
        for number in range(CALLERS)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(outcomes) > 2 * CALLERS, "no screening is answered")
    assert stack.api is not None
    stop = signal.SIGINT if interrupted else signal.SIGTERM
    supervisor = psutil.Process(stack.api.pid)
    # A terminal signals its whole foreground group, workers first or last.
    stopped = [*supervisor.children(recursive=True), supervisor] if interrupted else [supervisor]
    for process in stopped:
        process.send_signal(stop)
    for thread in threads:
        thread.join()
    assert stack.api.wait(60) in (0, -stop)
    time.sleep(0.1)
    return Counter(outcomes)
