"""The judgement of a load test; the load itself is run by hand (infra/runbooks/scale.md)."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

LOCUSTFILE = Path(__file__).with_name("locustfile.py")

#: gevent patches the standard library at locust's import, so each judgement has its own process.
PROGRAM = """
from locust.stats import RequestStats
from tests.load.locustfile import SCREENING, find_missed_targets

stats = RequestStats()
for number in range({requests}):
    stats.log_request("POST", SCREENING, {milliseconds}, 10)
for number in range({errors}):
    stats.log_error("POST", SCREENING, "503")
entry = stats.get(SCREENING, "POST")
stats.total.start_time, stats.total.last_request_timestamp = 1.0, 1.0 + {seconds}
print("; ".join(find_missed_targets(entry)))
"""


def assess(requests: int, milliseconds: int, errors: int, seconds: int) -> str:
    numbers = {"milliseconds": milliseconds, "errors": errors, "seconds": seconds}
    program = textwrap.dedent(PROGRAM).format(requests=requests, **numbers)
    finished = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=LOCUSTFILE.parents[2],
        env=os.environ | {"PYTHONPATH": str(LOCUSTFILE.parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    return finished.stdout.strip()


@pytest.mark.parametrize(
    ("numbers", "missed"),
    [
        ((0, 0, 0, 10), "no screening was answered"),
        ((20_000, 3_000, 0, 100), "p50 is 3000 ms"),
        ((20_000, 50, 30, 100), "errors, target under 0.1%"),
        ((9_000, 50, 0, 100), "90 requests/s, target over 100"),
    ],
)
def test_a_missed_target_is_told(numbers: tuple[int, int, int, int], missed: str) -> None:
    assert missed in assess(*numbers)


def test_nothing_is_told_when_all_are_met() -> None:
    assert assess(20_000, 50, 0, 100) == ""
