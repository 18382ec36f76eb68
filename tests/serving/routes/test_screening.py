import math
import time
import uuid
from datetime import timedelta

import pytest
from sqlalchemy import func, text, update

from feature_repo.answer_features import SECONDS_PER_DAY, STORED_PHQ9_ITEMS
from feature_repo.pseudonyms import pseudonymise
from serving.database.tables import Consent, Prediction, ReviewItem
from serving.http.guidance import GUIDANCE
from serving.roles import Role
from tests.fixtures.api import (
    AT_COMMIT,
    AT_INSERT,
    HIGH_ANSWERS,
    LOW_ANSWERS,
    SALT,
    make_headers,
    read_audit,
    read_rows,
)

SOMEONE = "0123456789abcdef0123456789abcdef"
CRISIS_ANSWERS = [*LOW_ANSWERS[:8], 1]

pytestmark = pytest.mark.usefixtures("client")


def read_problem(response, status):
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"
    return response.json()


# Refusals


def test_a_caller_without_a_token_is_refused(client):
    problem = read_problem(client.post("/screen", json={"anonymized_id": SOMEONE}), 401)

    assert problem["type"] == "urn:mhras:problem:unauthenticated"


@pytest.mark.parametrize("header", ["Bearer x.y.z", "Basic dXNlcjpwdw==", "Bearer"])
def test_a_caller_with_an_unusable_token_is_refused(client, header):
    response = client.post(
        "/screen", json={"anonymized_id": SOMEONE}, headers={"Authorization": header}
    )

    assert response.headers["WWW-Authenticate"] == "Bearer"
    read_problem(response, 401)


@pytest.mark.parametrize("role", [Role.DATA_SCIENTIST, Role.AUDITOR])
def test_a_role_that_may_not_screen_is_refused_and_audited(client, engine, role):
    response = client.post("/screen", json={"anonymized_id": SOMEONE}, headers=make_headers(role))
    problem = read_problem(response, 403)

    assert problem["type"] == "urn:mhras:problem:role-not-allowed"
    with engine.connect() as connection:
        query = text("SELECT user_role, action, result FROM audit_log WHERE request_id = :id")
        rows = connection.execute(query, {"id": problem["request_id"]}).all()
    assert rows == [(role.value, "screen", "failure")]


def test_an_individual_without_consent_is_refused_audited_and_not_recorded(screen, engine):
    problem = read_problem(screen(SOMEONE, LOW_ANSWERS), 403)

    assert problem["type"] == "urn:mhras:problem:consent-missing"
    assert problem["crisis_guidance"] == GUIDANCE
    (row,) = read_audit(engine, SOMEONE)
    assert (row.user_id, row.result, row.details) == (
        "clinician_001",
        "failure",
        {"reason": "consent-missing"},
    )
    assert read_rows(engine, Prediction, SOMEONE) == []


def test_the_callers_own_statement_of_consent_does_not_replace_ours(screen):
    read_problem(screen("f" * 32, LOW_ANSWERS, consent_verified=True), 403)


def test_consent_to_training_alone_does_not_allow_a_screening(screen, grant):
    read_problem(screen(grant(purposes=("training",)), LOW_ANSWERS), 403)


def test_nobody_is_refused_on_what_a_cache_says(screen, grant, engine):
    individual = grant(purposes=("training",))
    read_problem(screen(individual, LOW_ANSWERS), 403)
    with engine.begin() as connection:
        # Without triggers no worker is told.
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(
            text("UPDATE consent SET purposes = '{screening}' WHERE anonymized_id = :one"),
            {"one": individual},
        )

    assert screen(individual, LOW_ANSWERS).status_code == 200


def test_survey_answers_are_refused_when_consent_covers_only_other_data(screen, grant):
    problem = read_problem(screen(grant("wearable"), LOW_ANSWERS), 403)

    assert "survey answers" in problem["detail"]


@pytest.mark.parametrize(
    ("survey", "field"),
    [
        ({"phq9": [4, *LOW_ANSWERS[1:]]}, "survey_data.phq9[0]"),
        ({"phq9": [-1, *LOW_ANSWERS[1:]]}, "survey_data.phq9[0]"),
        ({"phq9": ["x", *LOW_ANSWERS[1:]]}, "survey_data.phq9[0]"),
        ({"phq9": [True, *LOW_ANSWERS[1:]]}, "survey_data.phq9[0]"),
        ({"phq9": [1.0, *LOW_ANSWERS[1:]]}, "survey_data.phq9[0]"),
        ({"phq9": LOW_ANSWERS[:8]}, "survey_data.phq9"),
        ({"gad7": [0] * 8}, "survey_data.gad7"),
        ({"phq9_score": 28}, "survey_data.phq9_score"),
        ({"phq9": LOW_ANSWERS, "phq9_score": 9}, "survey_data"),
        ({"phq8": [0] * 8}, "survey_data.phq8"),
    ],
)
def test_impossible_answers_are_refused_naming_the_field(client, survey, field):
    body = {"anonymized_id": SOMEONE, "survey_data": survey}
    problem = read_problem(client.post("/screen", json=body, headers=make_headers()), 422)

    assert [error["field"] for error in problem["errors"]] == [field]
    assert not problem["errors"][0]["message"].startswith("Value error")
    assert problem["crisis_guidance"] == GUIDANCE


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"anonymized_id": "test_user"}, "anonymized_id"),
        ({"anonymized_id": None}, "body"),
        ({"patient_id": "P-1"}, "body"),
        ({"index_time": 0}, "index_time"),
        ({"index_time": "2026-01-01T00:00:00"}, "index_time"),
        ({"index_time": "2199-01-01T00:00:00Z"}, "index_time"),
        ({"consent_verified": "yes"}, "consent_verified"),
        ({"Jane Doe, 1980": 1}, "(unnamed)"),
        ({"Jane": 1}, "(unnamed)"),
        ({"SmFuZSBEb2UsIDE5ODA": 1}, "(unnamed)"),
        ({"patient_name": 1}, "patient_name"),
        ({"patientName": 1}, "patientName"),
    ],
)
def test_an_unusable_request_is_refused_naming_the_field(client, changes, field):
    body = {"anonymized_id": SOMEONE} | changes
    problem = read_problem(client.post("/screen", json=body, headers=make_headers()), 422)

    assert [error["field"] for error in problem["errors"]] == [field]
    assert not problem["errors"][0]["message"].startswith("Value error")
    assert problem["crisis_guidance"] == GUIDANCE


def test_a_refused_body_is_never_repeated(client):
    body = {"patient_id": "Jane Doe" * 30, "survey_data": {"phq9": ["suicidal"] * 9}}
    response = client.post("/screen", json=body, headers=make_headers())

    assert response.status_code == 422
    assert "Jane" not in response.text
    assert "suicidal" not in response.text


# All or nothing


def test_no_prediction_is_left_when_the_audit_write_fails(screen, grant, engine, breaking_trigger):
    individual = grant()
    breaking_trigger("audit_log", AT_INSERT)
    problem = read_problem(screen(individual, HIGH_ANSWERS), 500)

    assert problem["crisis_guidance"] == GUIDANCE
    assert read_rows(engine, Prediction, individual) == []
    assert read_rows(engine, ReviewItem, individual) == []


@pytest.mark.parametrize("table", ["predictions", "audit_log", "review_items"])
def test_a_failing_commit_is_not_answered_as_success(
    screen, grant, engine, breaking_trigger, table
):
    individual = grant()
    breaking_trigger(table, AT_COMMIT)

    assert screen(individual, HIGH_ANSWERS).status_code == 500
    assert read_rows(engine, Prediction, individual) == []
    assert read_audit(engine, individual) == []


def test_a_refusal_that_cannot_be_audited_is_answered_as_an_outage(screen, breaking_trigger):
    breaking_trigger("audit_log", AT_INSERT)

    problem = read_problem(screen("e" * 32, LOW_ANSWERS), 503)
    assert problem["type"] == "urn:mhras:problem:database-unavailable"


# Answers


def test_an_answer_names_score_band_reasons_and_versions(screen, grant, reader, production_version):
    individual = grant()
    reader.stored[individual] = {
        "steps_mean_28": 2000,
        "sleep_minutes_mean_28": 320,
        "emergency_visits_365": 2,
        "birth_year": 1985,
    }
    answer = screen(individual, HIGH_ANSWERS).json()

    assert answer["risk_band"] in ("high", "critical")
    assert 0 < answer["interval"]["low"] < answer["probability"] < answer["interval"]["high"]
    assert answer["reasons"][0]["feature"] == "phq9_total"
    assert "PHQ-9 23 of 27, severe; raises" in (answer["reasons"][0]["text"])
    assert answer["release"]["version"] == production_version
    assert {member["registered_model"] for member in answer["release"]["members"]} == {
        "mhras-logistic-regression",
        "mhras-lightgbm",
    }
    assert (answer["missing_data"], answer["degraded"]) == ([], [])
    assert answer["known_individual"] is True
    assert answer["intended_use"]["href"] == "/intended-use"


def test_prediction_review_and_audit_are_recorded_together(screen, grant, engine):
    individual = grant()
    answer = screen(individual, CRISIS_ANSWERS).json()

    (prediction,) = read_rows(engine, Prediction, individual)
    (review,) = read_rows(engine, ReviewItem, individual)
    (audit_row,) = read_audit(engine, individual)
    assert str(prediction.id) == answer["prediction_id"]
    assert prediction.inputs["features"]["phq9_item_9"] == 1
    assert prediction.answer["reasons"] == answer["reasons"]
    assert (review.prediction_id, review.priority, review.status) == (
        prediction.id,
        "critical",
        "pending",
    )
    assert audit_row.event_type == "screening_request"
    assert audit_row.action == "generate_risk_score"
    assert audit_row.data_types == ["survey"]
    assert audit_row.details["prediction_id"] == answer["prediction_id"]


def test_a_low_screening_queues_nothing(screen, grant, engine, reader):
    individual = grant()
    reader.stored[individual] = {"steps_mean_28": 9000, "emergency_visits_365": 0}
    answer = screen(individual, [0] * 9).json()

    assert (answer["risk_band"], answer["needs_review"]) == ("low", False)
    assert answer["crisis_guidance"] is None
    assert read_rows(engine, ReviewItem, individual) == []


def test_an_unknown_individual_is_answered_from_the_request_and_marked(screen, grant):
    answer = screen(grant(), HIGH_ANSWERS).json()

    assert answer["known_individual"] is False
    assert answer["missing_data"] == ["wearable", "emr"]
    assert answer["probability"] > 0


def test_an_individual_of_whom_nothing_is_known_goes_to_a_person(screen, grant):
    answer = screen(grant()).json()

    assert answer["missing_data"] == ["survey", "wearable", "emr"]
    assert "abstention" in [reason["code"] for reason in answer["review_reasons"]]


def test_every_outcome_comes_with_its_interval_and_a_sentence(screen, grant):
    (outcome,) = screen(grant(), [1] * 8 + [0]).json()["outcomes"]

    assert outcome["outcome"] == "adverse_course_v1"
    assert outcome["interval"]["low"] <= outcome["probability"] <= outcome["interval"]["high"]
    assert "chance of PHQ-9 of 15 or more" in outcome["text"]


def test_data_without_screening_consent_are_not_used(screen, grant, engine, reader):
    individual = grant("survey")
    reader.stored[individual] = {"steps_mean_28": 2000, "emergency_visits_365": 2}
    answer = screen(individual, LOW_ANSWERS).json()

    assert answer["missing_data"] == ["wearable", "emr"]
    (prediction,) = read_rows(engine, Prediction, individual)
    assert prediction.inputs["features"]["steps_mean_28"] is None
    assert prediction.inputs["features"]["emergency_visits_365"] is None


def test_item_9_above_zero_forces_the_top_band_whatever_the_models_say(screen, grant):
    answer = screen(grant(), CRISIS_ANSWERS).json()

    assert answer["model_score"] < 50
    assert (answer["risk_score"], answer["risk_band"]) == (100, "critical")
    assert (answer["decided_by"], answer["needs_review"]) == ("crisis_rule", True)
    assert answer["crisis_guidance"] == GUIDANCE


def test_an_unreadable_item_9_counts_as_present(screen, grant):
    answer = screen(grant(), [*LOW_ANSWERS[:8], None]).json()

    assert answer["risk_band"] == "critical"
    assert "unreadable_crisis_item" in [reason["code"] for reason in answer["review_reasons"]]


@pytest.mark.parametrize("unreadable", [-1, 4, "yes", "１", True, 1.0, [1], None])
def test_an_item_9_that_is_no_answer_counts_as_present(screen, grant, unreadable):
    answer = screen(grant(), [*LOW_ANSWERS[:8], unreadable]).json()

    assert (answer["risk_band"], answer["needs_review"]) == ("critical", True)
    assert answer["crisis_guidance"] == GUIDANCE


@pytest.mark.parametrize("item_9", [1, None])
def test_without_a_phq9_in_the_request_the_stored_one_decides(screen, grant, reader, item_9):
    individual = grant()
    reader.stored[individual] = store_phq9(item_9, days_ago=13)
    answer = screen(individual).json()

    assert (answer["risk_band"], answer["decided_by"]) == ("critical", "crisis_rule")
    assert "stored_crisis_item" in [reason["code"] for reason in answer["review_reasons"]]
    assert answer["model_score"] is not None


def test_a_stored_item_9_of_long_ago_or_without_consent_says_nothing(screen, grant, reader):
    old, unconsented = grant(), grant("wearable", "emr")
    reader.stored |= {old: store_phq9(3, days_ago=16), unconsented: store_phq9(3, days_ago=1)}

    for individual in (old, unconsented):
        assert screen(individual).json()["decided_by"] == "release"


def test_a_negative_item_9_lowers_a_stored_crisis_only_once_a_clinician_has_closed_it(
    screen, grant, reader, engine
):
    individual = grant()
    reader.stored[individual] = store_phq9(3, days_ago=1)

    assert screen(individual, LOW_ANSWERS).json()["decided_by"] == "crisis_rule"
    with engine.begin() as connection:
        connection.execute(
            update(ReviewItem)
            .where(ReviewItem.anonymized_id == individual)
            .values(status="decided", decided_at=func.now(), decision="agree")
        )
    assert screen(individual, LOW_ANSWERS).json()["decided_by"] == "release"


def test_severe_symptoms_reach_a_person_whatever_the_release_estimates(screen, grant, engine):
    individual = grant()
    answer = screen(individual, [3, 3, 3, 3, 2, 3, 3, 3, 0]).json()

    assert answer["risk_band"] in ("high", "critical")
    assert answer["risk_score"] >= answer["model_score"]
    assert "severe_phq9" in [reason["code"] for reason in answer["review_reasons"]]
    (item,) = read_rows(engine, ReviewItem, individual)
    assert item.due_at - item.created_at <= timedelta(hours=24)


def test_a_repetition_after_a_withdrawal_is_refused(client, grant, engine):
    individual = grant()
    body = {"anonymized_id": individual, "survey_data": {"phq9": LOW_ANSWERS}}
    headers = make_headers() | {"Idempotency-Key": uuid.uuid4().hex}
    assert client.post("/screen", json=body, headers=headers).status_code == 200
    repeated = client.post("/screen", json=body, headers=headers)
    (viewing,) = [row for row in read_audit(engine, individual) if row.action == "replay_screening"]
    with engine.begin() as connection:
        connection.execute(
            update(Consent)
            .where(Consent.anonymized_id == individual)
            .values(withdrawn_at=func.now())
        )
    refused = wait_for_refusal(lambda: client.post("/screen", json=body, headers=headers))

    assert repeated.json()["prediction_id"] == viewing.details["prediction_id"]
    assert refused.json()["type"] == "urn:mhras:problem:consent-missing"


def wait_for_refusal(post):
    """Post until a withdrawal has reached the worker, which takes less than a second."""
    deadline = time.monotonic() + 5
    while (response := post()).status_code == 200 and time.monotonic() < deadline:
        time.sleep(0.05)
    return response


def test_a_crisis_under_another_requests_key_is_refused_with_guidance(client, grant):
    headers = make_headers() | {"Idempotency-Key": uuid.uuid4().hex}
    individual = grant()
    for answers in (LOW_ANSWERS, [*LOW_ANSWERS[:8], 2]):
        body = {"anonymized_id": individual, "survey_data": {"phq9": answers}}
        response = client.post("/screen", json=body, headers=headers)

    assert response.status_code == 422
    assert response.json()["crisis_guidance"] == GUIDANCE


def store_phq9(item_9: int | None, days_ago: int) -> dict[str, float]:
    """Return what a features run stores of a PHQ-9 with all but the last item answered 0."""
    items = dict.fromkeys(STORED_PHQ9_ITEMS, 0.0)
    items[STORED_PHQ9_ITEMS[-1]] = math.nan if item_9 is None else float(item_9)
    return items | {"stored_phq9_at": time.time() // SECONDS_PER_DAY - days_ago}


def test_a_total_alone_asks_a_person_to_read_item_9(screen, grant):
    answer = screen(grant(), survey_data={"phq9_score": 5}).json()

    assert answer["needs_review"] is True
    assert "crisis_item_unknown" in [reason["code"] for reason in answer["review_reasons"]]
    assert answer["decided_by"] == "release"


def test_a_patient_id_is_hashed_on_arrival_and_appears_nowhere(client, grant, engine, capfd):
    person = "Hospital-0815"
    individual = grant(anonymized_id=pseudonymise(person, SALT))
    body = {"patient_id": f" {person} ", "survey_data": {"phq9": LOW_ANSWERS}}
    response = client.post("/screen", json=body, headers=make_headers())

    assert response.json()["anonymized_id"] == individual
    assert person not in response.text
    (prediction,) = read_rows(engine, Prediction, individual)
    assert person not in str(prediction.answer)
    assert person not in "".join(capfd.readouterr())


def test_a_summary_is_one_short_sentence(screen, grant):
    for answers in (LOW_ANSWERS, HIGH_ANSWERS, CRISIS_ANSWERS, [None] * 9, None):
        summary = screen(grant(), answers).json()["summary"]
        assert len(summary) < 140
        assert "priority" in summary or summary.startswith("Review now")


def test_a_screening_moves_the_guides_metrics(client, screen, grant):
    screen(grant(), CRISIS_ANSWERS)
    screen("d" * 32)
    exposed = client.get("/metrics").text

    assert 'mhras_screenings_total{risk_band="critical"}' in exposed
    assert 'mhras_alerts_triggered_total{kind="crisis_rule"}' in exposed
    assert 'mhras_human_reviews_queued_total{priority="critical"}' in exposed
    assert 'endpoint="/screen",method="POST",status="200"' in exposed
    assert "d" * 32 not in exposed
