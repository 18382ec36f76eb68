"""Both limits, in any sliding window, for each caller, across processes."""

import multiprocessing
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import RateLimitedError
from serving.http import rate_limit
from serving.http.rate_limit import PROBES, SLOTS, Allowance, RateLimiter
from tests.fixtures.api import LOW_ANSWERS, MemoryReader, make_headers, make_settings, run_app
from tests.fixtures.rate_limits import ask_often, is_admitted


class Clock:
    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(rate_limit, "time", clock)
    return clock


@pytest.fixture
def make_limiter():
    made = []

    def make(per_minute, per_second):
        made.append(RateLimiter(Allowance(per_minute, per_second)))
        return made[-1]

    yield make
    for limiter in made:
        limiter.close()


def test_the_request_after_the_minutes_last_is_refused_until_the_first_is_a_minute_old(
    clock, make_limiter
):
    limiter = make_limiter(100, 20)
    admitted = []
    for _ in range(200):
        admitted.append(is_admitted(limiter))
        clock.now += 0.1

    assert admitted[:100] == [True] * 100
    assert not any(admitted[100:])
    clock.now = 1000.0 + 59.9
    with pytest.raises(RateLimitedError) as refused:
        limiter.admit("dr.who")
    assert refused.value.headers == {"Retry-After": "1"}
    clock.now = 1000.0 + 60.05
    assert is_admitted(limiter)
    assert not is_admitted(limiter)


def test_a_burst_beyond_a_second_is_refused_and_the_next_second_has_room(clock, make_limiter):
    limiter = make_limiter(100, 20)

    assert [is_admitted(limiter) for _ in range(25)] == [True] * 20 + [False] * 5
    clock.now += 1.01
    assert is_admitted(limiter)


def test_callers_do_not_share_an_allowance(clock, make_limiter):
    limiter = make_limiter(2, 2)
    used = [is_admitted(limiter, "ada") for _ in range(3)]

    assert used == [True, True, False]
    assert is_admitted(limiter, "grace")


@settings(max_examples=60)
@given(steps=st.lists(st.floats(0, 30), min_size=1, max_size=60))
def test_no_sliding_window_ever_holds_more_than_its_limit(steps):
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rate_limit, "time", clock)
        limiter, times = RateLimiter(Allowance(per_minute=6, per_second=3)), []
        for step in steps:
            clock.now += step
            if is_admitted(limiter):
                times.append(clock.now)
    limiter.close()

    for begin in times:
        assert sum(begin <= moment < begin + 60 for moment in times) <= 6
        assert sum(begin <= moment < begin + 1 for moment in times) <= 3


def test_a_full_table_forgets_the_longest_silent_caller(clock, make_limiter, monkeypatch):
    monkeypatch.setattr(rate_limit, "SLOTS", PROBES)
    limiter = make_limiter(1, 1)
    for number in range(PROBES):
        limiter.admit(f"caller {number}")
        clock.now += 1
    limiter.admit("one more")

    assert not is_admitted(limiter, f"caller {PROBES - 1}")
    assert is_admitted(limiter, "caller 0")
    assert SLOTS > 1000


def test_workers_share_one_allowance(tmp_path):
    path = tmp_path / "rates"
    path.touch()
    context = multiprocessing.get_context("spawn")
    admitted = context.Value("i", 0)
    workers = [context.Process(target=ask_often, args=(str(path), 60, admitted)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert admitted.value == 50


def test_a_caller_beyond_the_limit_is_told_when_to_come_back(
    database_url, mlflow_url, production_version, grant
):
    changes = {"rate_limit_per_minute": 3, "rate_limit_per_second": 3}
    begun = time.monotonic()
    with run_app(make_settings(database_url, mlflow_url, **changes), MemoryReader()) as client:
        body = {"anonymized_id": grant(), "survey_data": {"phq9": LOW_ANSWERS}}
        answers = [client.post("/screen", json=body, headers=make_headers()) for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert 0 < int(answers[3].headers["Retry-After"]) <= 60
    assert answers[3].json()["crisis_guidance"]
    assert time.monotonic() - begun < 60
