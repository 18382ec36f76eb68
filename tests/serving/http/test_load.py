"""Beyond what a worker can take on, only a crisis is let in."""

import asyncio
import threading

import pytest

from serving.errors import OverloadedError
from serving.http.load import LoadLimit
from tests.fixtures.api import LOW_ANSWERS, MemoryReader, make_headers, make_settings, run_app

CRISIS_ANSWERS = [*LOW_ANSWERS[:8], 1]


class HeldReader(MemoryReader):
    """A store that answers only when it is let go."""

    def __init__(self):
        super().__init__()
        self.entered, self.let_go = threading.Semaphore(0), threading.Event()

    def fetch(self, views, individuals):
        self.entered.release()
        assert self.let_go.wait(20)
        return super().fetch(views, individuals)


def post(client, individual, phq9):
    body = {"anonymized_id": individual, "survey_data": {"phq9": phq9}}
    return client.post("/screen", json=body, headers=make_headers())


def count_shed(client):
    lines = client.get("/metrics").text.splitlines()
    (line,) = [line for line in lines if line.startswith("mhras_screenings_shed_total ")]
    return float(line.split()[1])


def test_one_more_than_fits_is_turned_away_and_a_crisis_is_not():
    limit = LoadLimit(2)
    with limit.admit(urgent=False), limit.admit(urgent=False):
        with pytest.raises(OverloadedError), limit.admit(urgent=False):
            pass
        with limit.admit(urgent=True):
            assert limit.under_way == 3
    assert limit.under_way == 0


def test_a_screening_that_fails_makes_room_again():
    limit = LoadLimit(1)
    with pytest.raises(RuntimeError), limit.admit(urgent=False):
        raise RuntimeError
    with limit.admit(urgent=False):
        assert limit.under_way == 1


def test_a_full_worker_sheds_all_but_the_crisis(
    database_url, mlflow_url, production_version, grant
):
    reader = HeldReader()
    settings = make_settings(
        database_url, mlflow_url, max_concurrent_screenings=1, screening_timeout=30
    )
    individuals = [grant() for _ in range(3)]
    answers = {}

    def ask(name, individual, phq9):
        answers[name] = post(client, individual, phq9)

    with run_app(settings, reader) as client:
        before = count_shed(client)
        first = threading.Thread(target=ask, args=("first", individuals[0], LOW_ANSWERS))
        first.start()
        assert reader.entered.acquire(timeout=20)
        shed = post(client, individuals[1], LOW_ANSWERS)
        crisis = threading.Thread(target=ask, args=("crisis", individuals[2], CRISIS_ANSWERS))
        crisis.start()
        assert reader.entered.acquire(timeout=20)
        reader.let_go.set()
        first.join()
        crisis.join()
        shed_meanwhile = count_shed(client) - before

    assert shed.status_code == 503
    assert shed.headers["Retry-After"] == "1"
    assert shed.json()["type"] == "urn:mhras:problem:overloaded"
    assert shed.json()["crisis_guidance"]
    assert answers["first"].status_code == 200
    assert answers["crisis"].json()["risk_band"] == "critical"
    assert shed_meanwhile == 1


def test_the_limit_is_of_the_loop_not_of_threads():
    limit = LoadLimit(3)

    async def hold():
        with limit.admit(urgent=False):
            await asyncio.sleep(0.01)

    async def run():
        outcomes = await asyncio.gather(*(hold() for _ in range(10)), return_exceptions=True)
        return sum(isinstance(one, OverloadedError) for one in outcomes)

    assert asyncio.run(run()) == 7
