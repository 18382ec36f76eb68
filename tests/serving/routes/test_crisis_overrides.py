"""A clinician's word: heard whatever else is down, and never lowering anything."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.orm import Session

from serving.database.tables import CrisisOverride, Prediction, ReviewItem
from serving.http.guidance import GUIDANCE
from serving.roles import Role
from tests.fixtures.api import (
    AT_COMMIT,
    AT_INSERT,
    LOW_ANSWERS,
    MemoryReader,
    make_headers,
    make_settings,
    read_audit,
    read_rows,
    run_app,
)

BODY = {"comment": "Told me of a plan."}
REFERRAL = {"decision": "refer", "comment": "to the crisis team"}
NO_MLFLOW = "http://127.0.0.1:1"


def override(client, prediction_id, body=BODY):
    path = f"/screen/{prediction_id}/crisis-override"
    return client.post(path, json=body, headers=make_headers())


@pytest.fixture
def screened(screen, grant):
    """A screening of low priority that nobody was asked to review."""
    individual = grant()
    stored = screen(individual, LOW_ANSWERS).json()
    return individual, stored["prediction_id"]


def test_an_unknown_prediction_is_not_found(client):
    assert override(client, uuid.uuid4()).status_code == 404


@pytest.mark.parametrize("body", [{}, {"comment": ""}, {"comment": "x\u0000"}, {"comment": 1}])
def test_an_override_says_why(client, screened, body):
    assert override(client, screened[1], body).status_code == 422


@pytest.mark.parametrize("timing", [AT_INSERT, AT_COMMIT], ids=["at insert", "at commit"])
@pytest.mark.parametrize("table", ["audit_log", "crisis_overrides"])
def test_an_override_that_cannot_be_recorded_is_an_error_with_guidance(
    client, screened, engine, breaking_trigger, table, timing
):
    individual, prediction_id = screened
    before = len(read_rows(engine, ReviewItem, individual))
    breaking_trigger(table, timing)
    response = override(client, prediction_id)

    assert response.status_code == 500
    assert response.json()["crisis_guidance"] == GUIDANCE
    assert read_rows(engine, CrisisOverride, individual) == []
    assert len(read_rows(engine, ReviewItem, individual)) == before


def test_without_a_database_the_answer_is_an_outage_with_guidance(mlflow_url):
    settings = make_settings("postgresql://mhras:hidden@127.0.0.1:1/mhras", mlflow_url)
    with run_app(settings, MemoryReader()) as client:
        response = override(client, uuid.uuid4())

    assert (response.status_code, response.json()["crisis_guidance"]) == (503, GUIDANCE)


def test_switched_off_it_is_refused_with_guidance_and_audited(
    application_url, mlflow_url, screened, engine
):
    individual, prediction_id = screened
    settings = make_settings(application_url, mlflow_url, enable_crisis_override=False)
    with run_app(settings, MemoryReader()) as client:
        response = override(client, prediction_id)

    assert response.status_code == 403
    assert response.json()["type"] == "urn:mhras:problem:feature-disabled"
    assert response.json()["crisis_guidance"] == GUIDANCE
    assert read_rows(engine, CrisisOverride, individual) == []


def test_switched_off_item_9_still_forces_the_top_band(application_url, grant):
    settings = make_settings(application_url, NO_MLFLOW, enable_crisis_override=False)
    body = {"anonymized_id": grant(), "survey_data": {"phq9": [*LOW_ANSWERS[:8], 1]}}
    with run_app(settings, MemoryReader()) as client:
        answer = client.post("/screen", json=body, headers=make_headers()).json()

    assert (answer["risk_band"], answer["needs_review"]) == ("critical", True)


def test_an_override_puts_a_screening_before_a_person_at_once(client, screened, engine):
    individual, prediction_id = screened
    answer = override(client, prediction_id).json()

    assert (answer["risk_band"], answer["needs_review"]) == ("critical", True)
    assert answer["crisis_guidance"] == GUIDANCE
    items = {str(item.id): item for item in read_rows(engine, ReviewItem, individual)}
    item = items[answer["review_id"]]
    assert (item.priority, item.status) == ("critical", "pending")
    assert "clinician_override" in item.reasons
    row = read_audit(engine, individual)[-1]
    assert (row.event_type, row.user_id) == ("crisis_override", "clinician_001")
    assert BODY["comment"] not in str(row.details)
    listed = client.get(f"/individuals/{individual}/predictions", headers=make_headers()).json()[
        "items"
    ]
    assert (listed[0]["risk_band"], listed[0]["crisis_override"]) == ("critical", True)
    (prediction,) = read_rows(engine, Prediction, individual)
    assert prediction.risk_band != "critical", "what was answered stays as it was answered"


def test_an_item_that_is_waiting_becomes_the_most_urgent(client, screened, engine):
    individual, prediction_id = screened
    later = datetime.now(UTC) + timedelta(days=3)
    waiting = ReviewItem(
        id=uuid.uuid4(),
        prediction_id=uuid.UUID(prediction_id),
        anonymized_id=individual,
        created_at=datetime.now(UTC) - timedelta(days=9),
        priority="low",
        reasons=["score"],
        status="claimed",
        claimed_by="somebody",
        due_at=later,
    )
    with Session(engine, expire_on_commit=False) as session, session.begin():
        session.add(waiting)
    assert override(client, prediction_id).json()["review_id"] == str(waiting.id)

    items = {item.id: item for item in read_rows(engine, ReviewItem, individual)}
    raised = items[waiting.id]
    assert (raised.priority, raised.reasons) == ("critical", ["score", "clinician_override"])
    assert raised.due_at < later


def test_a_second_word_joins_the_open_item(client, screened, engine):
    individual, prediction_id = screened
    first, second = override(client, prediction_id).json(), override(client, prediction_id).json()

    assert first["review_id"] == second["review_id"]
    assert len(read_rows(engine, CrisisOverride, individual)) == 2


def test_a_word_after_the_decision_opens_a_new_item(client, screened):
    _, prediction_id = screened
    first = override(client, prediction_id).json()["review_id"]
    client.post(
        f"/reviews/{first}/decision", json={"decision": "agree"}, headers=make_headers()
    ).raise_for_status()

    assert override(client, prediction_id).json()["review_id"] != first


def test_an_override_needs_neither_models_nor_features(application_url, screened):
    _, prediction_id = screened
    with run_app(make_settings(application_url, NO_MLFLOW), MemoryReader(is_up=False)) as client:
        assert override(client, prediction_id).status_code == 200


def test_an_override_is_counted(client, screened):
    override(client, screened[1])
    exposed = client.get("/metrics").text

    assert "mhras_crisis_overrides_total " in exposed
    assert 'mhras_alerts_triggered_total{kind="clinician"}' in exposed


def decide(client, review_id, headers, **decision):
    body = {"decision": "override", "reason_code": "clinical_assessment", "comment": "x"}
    path = f"/reviews/{review_id}/decision"
    return client.post(path, json=body | decision, headers=headers)


def test_a_crisis_is_not_lowered_by_the_clinician_who_declared_it(client, screened, engine):
    individual, prediction_id = screened
    review_id = override(client, prediction_id).json()["review_id"]
    refused = decide(client, review_id, make_headers(), new_band="low")

    assert refused.status_code == 409
    assert refused.json()["type"] == "urn:mhras:problem:second-person-needed"
    assert read_audit(engine, individual)[-1].result == "failure"
    items = {str(one.id): one for one in read_rows(engine, ReviewItem, individual)}
    assert items[review_id].status == "pending"


def test_a_second_clinician_may_lower_a_declared_crisis(client, screened):
    review_id = override(client, screened[1]).json()["review_id"]
    second = make_headers(Role.CLINICIAN, "clinician_2")

    assert decide(client, review_id, second, new_band="low").status_code == 200


def test_the_clinician_who_declared_a_crisis_may_act_on_it(client, screened):
    review_id = override(client, screened[1]).json()["review_id"]
    path = f"/reviews/{review_id}/decision"

    assert client.post(path, json=REFERRAL, headers=make_headers()).status_code == 200
