"""The same key and body get the same answer, and nobody is screened twice."""

import threading
import uuid
from datetime import timedelta

import pytest
from sqlalchemy import text

from serving.database.tables import Prediction
from serving.errors import IdempotencyMismatchError, RequestInFlightError
from serving.screening.idempotency import claim_key, give_up_key, hash_key
from tests.fixtures.api import (
    HIGH_ANSWERS,
    LOW_ANSWERS,
    SALT,
    make_headers,
    make_token,
    read_rows,
)

PATIENCE = timedelta(seconds=10)
BODY, OTHER = "a" * 64, "b" * 64


def post(client, individual, key, phq9=LOW_ANSWERS, headers=None, **body):
    request = {"anonymized_id": individual, "survey_data": {"phq9": phq9}} | body
    headers = (headers or make_headers()) | {"Idempotency-Key": key}
    return client.post("/screen", json=request, headers=headers)


@pytest.fixture
def key():
    return uuid.uuid4().hex


# Refusals


@pytest.mark.parametrize("key", ["short", "x" * 65, "Jane Doe 1980", "ö" * 10])
def test_a_key_that_might_name_somebody_is_refused(client, grant, key):
    assert post(client, grant(), key.encode(), LOW_ANSWERS).status_code == 422


def test_another_body_under_the_same_key_is_refused(client, grant, key, engine):
    individual = grant()
    post(client, individual, key)
    response = post(client, individual, key, HIGH_ANSWERS)

    assert response.status_code == 422
    assert response.json()["type"] == "urn:mhras:problem:idempotency-mismatch"
    assert len(read_rows(engine, Prediction, individual)) == 1


def test_another_individual_under_the_same_key_is_refused(client, grant, key):
    post(client, grant(), key)

    assert post(client, grant(), key).status_code == 422


def test_a_request_under_way_is_not_begun_again(engine, key):
    assert claim_key(engine, "ada", key, BODY, PATIENCE) is None

    with pytest.raises(RequestInFlightError):
        claim_key(engine, "ada", key, BODY, PATIENCE)
    with pytest.raises(IdempotencyMismatchError):
        claim_key(engine, "ada", key, OTHER, PATIENCE)


def test_a_request_under_way_is_answered_409(client, grant, key, engine):
    individual = grant()
    post(client, individual, key)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE idempotency_keys SET answer = NULL, claimed_at = now() WHERE key = :key"),
            {"key": hash_key(key, SALT)},
        )
    response = post(client, individual, key)

    assert response.status_code == 409
    assert response.headers["Retry-After"] == "1"


# Answers


def test_a_repetition_gets_the_same_answer_and_screens_nobody_again(client, grant, key, engine):
    individual = grant()
    first, second = post(client, individual, key), post(client, individual, key)

    assert first.status_code == second.status_code == 200
    assert second.json() == first.json()
    assert len(read_rows(engine, Prediction, individual)) == 1


def test_the_order_of_names_in_the_body_does_not_matter(client, grant, key):
    individual = grant()
    first = post(client, individual, key, index_time="2026-01-01T00:00:00Z")
    request = {
        "index_time": "2026-01-01T00:00:00Z",
        "survey_data": {"phq9": LOW_ANSWERS},
        "anonymized_id": individual,
    }
    headers = make_headers() | {"Idempotency-Key": key}

    assert client.post("/screen", json=request, headers=headers).json() == first.json()


def test_a_key_is_its_callers_own(client, grant, key, engine):
    individual = grant()
    post(client, individual, key)
    other = {"Authorization": f"Bearer {make_token(user='clinician_002')}"}
    post(client, individual, key, headers=other)

    assert len(read_rows(engine, Prediction, individual)) == 2


def test_a_request_that_was_refused_can_be_sent_again(client, grant, key, engine):
    individual = uuid.uuid4().hex
    assert post(client, individual, key).status_code == 403
    grant(anonymized_id=individual)
    # The worker may not have asked again yet; another key tells when it has.
    answers = [post(client, individual, uuid.uuid4().hex).status_code for _ in range(20)]

    assert 200 in answers
    assert post(client, individual, key).status_code == 200


def test_a_claim_of_a_worker_that_died_can_be_taken_over(engine, key):
    claim_key(engine, "ada", key, BODY, PATIENCE)

    assert claim_key(engine, "ada", key, BODY, timedelta(0)) is None
    give_up_key(engine, "ada", key)
    assert claim_key(engine, "ada", key, OTHER, PATIENCE) is None


def test_a_key_is_stored_as_its_hmac_alone(client, grant, engine):
    birthday = "1915-07-15"
    assert post(client, grant(), birthday).status_code == 200
    with engine.connect() as connection:
        keys = connection.scalars(text("SELECT key FROM idempotency_keys")).all()

    assert birthday not in keys
    assert hash_key(birthday, SALT) in keys
    assert hash_key(birthday, "another secret") not in keys


def test_a_key_is_forgotten_after_a_day(engine, key):
    claim_key(engine, "ada", key, BODY, PATIENCE)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE idempotency_keys SET claimed_at = now() - interval '25 hours'")
        )

    assert claim_key(engine, "ada", key, OTHER, PATIENCE) is None


def test_of_many_at_once_one_screens(client, grant, key, engine):
    individual, statuses = grant(), []
    threads = [
        threading.Thread(target=lambda: statuses.append(post(client, individual, key).status_code))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert set(statuses) <= {200, 409}
    assert 200 in statuses
    assert len(read_rows(engine, Prediction, individual)) == 1
