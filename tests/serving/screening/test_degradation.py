"""What is answered when a dependency is down, broken one at a time."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from feature_repo.stored_views import StoredRow, StoredView
from serving.database.tables import Prediction
from serving.http.guidance import GUIDANCE
from tests.fixtures.api import (
    HIGH_ANSWERS,
    LOW_ANSWERS,
    MemoryReader,
    make_headers,
    make_settings,
    read_rows,
    run_app,
)
from tests.fixtures.frozen import frozen, list_server_processes

NO_MLFLOW = "http://127.0.0.1:1"
CRISIS_ANSWERS = [*LOW_ANSWERS[:8], 2]


@dataclass
class HangingReader(MemoryReader):
    def fetch(
        self, views: Sequence[StoredView], individuals: Sequence[str]
    ) -> dict[str, StoredRow]:
        time.sleep(4)
        return super().fetch(views, individuals)


def post(client, anonymized_id, phq9):
    body = {"anonymized_id": anonymized_id, "survey_data": {"phq9": phq9}}
    return client.post("/screen", json=body, headers=make_headers())


@pytest.fixture(scope="module")
def client_without_release(database_url):
    with run_app(make_settings(database_url, NO_MLFLOW), MemoryReader()) as client:
        yield client


def test_an_unreachable_database_is_an_outage_with_crisis_guidance(mlflow_url, production_version):
    settings = make_settings("postgresql://mhras:hidden@127.0.0.1:1/mhras", mlflow_url)
    with run_app(settings, MemoryReader()) as client:
        response = post(client, "a" * 32, CRISIS_ANSWERS)

    assert response.status_code == 503
    assert response.headers["Retry-After"] == "10"
    assert response.json()["crisis_guidance"] == GUIDANCE
    assert "hidden" not in response.text


def test_without_a_release_a_screening_is_an_outage(client_without_release, grant, engine):
    individual = grant()
    response = post(client_without_release, individual, LOW_ANSWERS)

    assert response.status_code == 503
    assert response.json()["type"] == "urn:mhras:problem:no-release"
    assert read_rows(engine, Prediction, individual) == []


def test_the_severity_rules_answer_without_a_release(client_without_release, grant):
    answer = post(client_without_release, grant(), HIGH_ANSWERS).json()

    assert (answer["risk_band"], answer["decided_by"]) == ("high", "severity_rule")
    codes = [reason["code"] for reason in answer["review_reasons"]]
    assert {"severe_phq9", "no_release"} <= set(codes)


@pytest.mark.parametrize("item_9", [1, 2, 3, None])
def test_the_crisis_rule_answers_without_a_release(client_without_release, grant, engine, item_9):
    individual = grant()
    answer = post(client_without_release, individual, [*LOW_ANSWERS[:8], item_9]).json()

    assert (answer["risk_band"], answer["needs_review"]) == ("critical", True)
    assert (answer["release"], answer["probability"]) == (None, None)
    assert answer["degraded"] == ["release"]
    assert answer["crisis_guidance"] == GUIDANCE
    (prediction,) = read_rows(engine, Prediction, individual)
    assert prediction.release_version is None


def test_without_a_feature_store_the_request_alone_is_scored_and_marked(client, reader, grant):
    individual = grant()
    reader.stored[individual] = {"steps_mean_28": 6000, "emergency_visits_365": 0}
    complete = post(client, individual, LOW_ANSWERS).json()
    reader.is_up = False
    try:
        degraded = post(client, individual, LOW_ANSWERS).json()
    finally:
        reader.is_up = True

    assert degraded["degraded"] == ["feature_store"]
    assert degraded["known_individual"] is None
    assert degraded["missing_data"] == ["wearable", "emr"]
    assert degraded["confidence"] < complete["confidence"]


def test_a_hanging_feature_store_is_given_up_within_the_deadline(
    database_url, mlflow_url, production_version, grant
):
    individual = grant()
    settings = make_settings(database_url, mlflow_url, screening_timeout=1)
    with run_app(settings, HangingReader()) as client:
        started = time.monotonic()
        answer = post(client, individual, LOW_ANSWERS).json()

    assert time.monotonic() - started < 3
    assert answer["degraded"] == ["feature_store"]


def test_an_answer_that_comes_too_late_is_not_recorded(
    database_url, mlflow_url, production_version, grant, engine
):
    individual = grant()
    settings = make_settings(database_url, mlflow_url, screening_timeout=0.001)
    with run_app(settings, HangingReader()) as client:
        response = post(client, individual, LOW_ANSWERS)

    # 503 when already the consent query hits its statement timeout, 504 afterwards.
    assert response.status_code in (503, 504)
    assert response.json()["crisis_guidance"] == GUIDANCE
    assert read_rows(engine, Prediction, individual) == []


def test_a_frozen_database_is_given_up_while_it_is_frozen(
    postgres, database_url, mlflow_url, production_version, grant
):
    settings = make_settings(database_url, mlflow_url, screening_timeout=1)
    with run_app(settings, MemoryReader()) as client:
        person = grant()
        assert post(client, person, LOW_ANSWERS).status_code == 200
        with frozen(list_server_processes(postgres), 1):
            time.sleep(1)  # the lease of the caches is over: consent has to be read
            response = post(client, person, CRISIS_ANSWERS)
        again = post(client, person, CRISIS_ANSWERS)

    assert response.status_code in (503, 504)
    assert response.json()["crisis_guidance"] == GUIDANCE
    assert again.status_code == 200
