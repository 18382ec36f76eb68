"""Beyond what a worker can take on, only a crisis is let in."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from feature_repo.answer_features import SECONDS_PER_DAY, STORED_PHQ9_ITEMS
from serving.errors import OverloadedError
from serving.http.load import LoadLimit
from tests.fixtures.api import LOW_ANSWERS, MemoryReader, make_headers, make_settings, run_app

CRISIS_ANSWERS = [*LOW_ANSWERS[:8], 1]


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


def test_a_full_worker_sheds_all_but_crises_stored_ones_included(
    database_url, mlflow_url, production_version, grant, engine
):
    reader = MemoryReader()
    settings = make_settings(
        database_url, mlflow_url, max_concurrent_screenings=1, screening_timeout=30
    )
    first, second, crisis, stored = (grant() for _ in range(4))
    reader.stored[stored] = dict.fromkeys(STORED_PHQ9_ITEMS, 1.0) | {
        "stored_phq9_at": time.time() // SECONDS_PER_DAY - 1
    }
    with run_app(settings, reader) as client, ThreadPoolExecutor(3) as pool:
        before, load = count_shed(client), client.app.state.services.screening.load
        with engine.connect() as connection, connection.begin():
            connection.execute(text("LOCK TABLE predictions IN EXCLUSIVE MODE"))
            under_way = pool.submit(post, client, first, LOW_ANSWERS)
            wait_until(lambda: load.under_way == 1)
            shed = post(client, second, LOW_ANSWERS)
            urgent = [
                pool.submit(post, client, crisis, CRISIS_ANSWERS),
                pool.submit(post, client, stored, LOW_ANSWERS),
            ]
            wait_until(lambda: load.under_way == 3)
        shed_meanwhile = count_shed(client) - before

    assert shed.status_code == 503
    assert shed.headers["Retry-After"] == "1"
    assert shed.json()["type"] == "urn:mhras:problem:overloaded"
    assert shed.json()["crisis_guidance"]
    assert under_way.result().status_code == 200
    assert [one.result().json()["risk_band"] for one in urgent] == ["critical"] * 2
    assert shed_meanwhile == 1


def wait_until(holds):
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_limit_is_of_the_loop_not_of_threads():
    limit = LoadLimit(3)

    async def hold():
        with limit.admit(urgent=False):
            await asyncio.sleep(0.01)

    async def run():
        outcomes = await asyncio.gather(*(hold() for _ in range(10)), return_exceptions=True)
        return sum(isinstance(one, OverloadedError) for one in outcomes)

    assert asyncio.run(run()) == 7
