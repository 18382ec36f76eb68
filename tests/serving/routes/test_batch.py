"""Many screenings in one request: each is answered or refused by itself."""

import pytest
from sqlalchemy import text

from serving.database.tables import Prediction
from serving.http.guidance import GUIDANCE
from serving.screening.batch import MAX_ITEMS
from tests.fixtures.api import (
    LOW_ANSWERS,
    MemoryReader,
    make_headers,
    make_settings,
    read_audit,
    read_rows,
    run_app,
)


def post(client, items):
    return client.post("/screen/batch", json={"items": items}, headers=make_headers())


def ask(individual, phq9=LOW_ANSWERS):
    return {"anonymized_id": individual, "survey_data": {"phq9": phq9}}


@pytest.mark.parametrize("items", [[], [{}] * (MAX_ITEMS + 1), "all", None])
def test_no_items_or_too_many_are_refused(client, items):
    assert post(client, items).status_code == 422


def test_what_cannot_be_answered_says_why_and_stops_no_other(client, grant, engine):
    known, unknown = grant(), "e" * 32
    items = [ask(known), ask(unknown), ask(known, [9] * 9), {"patient": "Jane Doe"}, None]
    answer = post(client, items).json()

    assert (answer["answered"], answer["failed"]) == (1, 4)
    assert [result["position"] for result in answer["results"]] == list(range(5))
    kinds = [(one["problem"] or {}).get("type", "").split(":")[-1] for one in answer["results"]]
    assert kinds == ["", "consent-missing", *["invalid-request"] * 3]
    fields = [error["field"] for error in answer["results"][2]["problem"]["errors"]]
    assert fields[0] == "survey_data.phq9[0]"
    assert "Jane" not in str(answer)
    assert answer["results"][1]["problem"]["crisis_guidance"] == GUIDANCE
    assert [row.result for row in read_audit(engine, unknown)][-1] == "failure"


def test_every_item_is_recorded_like_a_screening_of_its_own(client, grant, engine):
    individuals = [grant() for _ in range(40)]
    answer = post(client, [ask(one, [*LOW_ANSWERS[:8], 1]) for one in individuals]).json()

    assert answer["answered"] == 40
    for individual, result in zip(individuals, answer["results"], strict=True):
        assert result["answer"]["risk_band"] == "critical"
        (prediction,) = read_rows(engine, Prediction, individual)
        assert str(prediction.id) == result["answer"]["prediction_id"]
        assert len(read_audit(engine, individual)) == 1


def test_items_whose_turn_comes_too_late_are_not_begun_and_say_so(
    application_url, mlflow_url, production_version, grant, engine
):
    """No time is left beside that of one screening."""
    individuals = [grant(), grant()]
    settings = make_settings(application_url, mlflow_url, request_timeout=5, screening_timeout=5)
    with run_app(settings, MemoryReader()) as client:
        answer = post(client, [ask(one) for one in individuals]).json()

    assert (answer["answered"], answer["failed"]) == (0, 2)
    for individual, result in zip(individuals, answer["results"], strict=True):
        assert result["problem"]["type"] == "urn:mhras:problem:deadline-exceeded"
        assert "not recorded" in result["problem"]["detail"]
        assert result["problem"]["crisis_guidance"] == GUIDANCE
        assert read_rows(engine, Prediction, individual) == []


def test_a_refusal_that_cannot_be_audited_is_no_answer_either(
    application_url, mlflow_url, production_version, engine
):
    settings = make_settings(application_url, mlflow_url, screening_timeout=1)
    with run_app(settings, MemoryReader()) as client, engine.begin() as connection:
        connection.execute(text("LOCK TABLE audit_log IN EXCLUSIVE MODE"))
        (result,) = post(client, [ask("d" * 32)]).json()["results"]

    assert result["problem"]["type"] == "urn:mhras:problem:database-unavailable"
    assert result["problem"]["crisis_guidance"] == GUIDANCE
    assert read_audit(engine, "d" * 32) == []
