"""Consents as clinicians record them, and how soon a withdrawal binds."""

import time
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from feature_repo.consent_terms import DATA_TYPES, PURPOSES
from serving.consent.notices import EXPIRING, find_unnoticed, give_notices
from serving.database.tables import AuditRow, Consent, ConsentChange
from serving.errors import FlowActor
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

NEXT_YEAR = (datetime.now(UTC) + timedelta(days=365)).isoformat()
EVERYTHING = {
    "data_types": list(DATA_TYPES),
    "purposes": list(PURPOSES),
    "expires_at": NEXT_YEAR,
}
#: By then no cache may hold what was withdrawn.
BOUND_SECONDS = 1


def put(client, individual, *grants):
    body = {"grants": list(grants)}
    return client.put(f"/consents/{individual}", json=body, headers=make_headers())


def withdraw(client, individual, **query):
    return client.delete(f"/consents/{individual}", params=query, headers=make_headers())


def screen_once(client, individual):
    body = {"anonymized_id": individual, "survey_data": {"phq9": LOW_ANSWERS}}
    return client.post("/screen", json=body, headers=make_headers()).status_code


@pytest.fixture
def individual():
    return uuid.uuid4().hex


# Refusals


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize("name", ["P-1", "A" * 32, "a" * 33, "a%00"])
def test_what_is_no_pseudonym_is_refused(client, method, name):
    body = {"json": {"grants": [EVERYTHING]}} if method == "PUT" else {}
    response = client.request(method, f"/consents/{name}", headers=make_headers(), **body)

    assert response.status_code == 422
    assert name not in response.text


@pytest.mark.parametrize(
    "changes",
    [
        {"data_types": []},
        {"data_types": ["genome"]},
        {"purposes": ["marketing"]},
        {"expires_at": "2020-01-01T00:00:00Z"},
        {"expires_at": "2099-01-01T00:00:00"},
        {"expires_at": 4_000_000_000},
        {"expires_at": None},
        {"expires_at": "9999-12-31T23:59:59-14:00"},
        {"granted_by": "x"},
    ],
    ids=str,
)
def test_an_unusable_grant_is_refused_and_changes_nothing(client, individual, engine, changes):
    assert put(client, individual, EVERYTHING | changes).status_code == 422
    assert read_rows(engine, Consent, individual) == []


@pytest.mark.parametrize("timing", [AT_INSERT, AT_COMMIT], ids=["at insert", "at commit"])
def test_a_withdrawal_that_cannot_be_audited_does_not_happen(
    client, individual, engine, breaking_trigger, timing
):
    put(client, individual, EVERYTHING)
    breaking_trigger("audit_log", timing)

    assert withdraw(client, individual).status_code == 500
    (consent,) = read_rows(engine, Consent, individual)
    assert consent.withdrawn_at is None


# What is allowed


def test_nothing_is_allowed_of_whom_nothing_is_known(client, individual):
    state = client.get(f"/consents/{individual}", headers=make_headers()).json()

    assert state["allowed"] == {"training": [], "screening": []}
    assert (state["in_force"], state["history"]) == ([], [])


def test_an_end_in_any_time_zone_is_recorded(client, individual, engine):
    put(client, individual, EVERYTHING | {"expires_at": "2099-01-01T00:00:00+21:28"})

    (consent,) = read_rows(engine, Consent, individual)
    assert consent.expires_at == datetime(2098, 12, 31, 2, 32, tzinfo=UTC)


def test_what_is_recorded_is_allowed_and_replaces_what_was(client, individual, engine):
    put(client, individual, EVERYTHING)
    survey = EVERYTHING | {"data_types": ["survey"], "purposes": ["screening"]}
    wearable = EVERYTHING | {"data_types": ["wearable"], "purposes": ["training"]}
    state = put(client, individual, survey, wearable).json()

    assert state["allowed"] == {"training": ["wearable"], "screening": ["survey"]}
    assert [one["change"] for one in state["history"]] == [
        *("granted", "withdrawn", "granted", "granted")
    ]
    assert {one["changed_by"] for one in state["history"]} == {"clinician_001"}
    assert len(read_rows(engine, Consent, individual)) == 3


def test_a_data_type_or_a_purpose_is_withdrawn_alone(client, individual):
    put(client, individual, EVERYTHING)

    state = withdraw(client, individual, data_type="emr").json()
    assert state["allowed"]["screening"] == ["survey", "wearable"]
    state = withdraw(client, individual, purpose="training").json()
    assert state["allowed"] == {"training": [], "screening": ["survey", "wearable"]}
    state = withdraw(client, individual, data_type="survey", purpose="screening").json()
    assert state["allowed"] == {"training": [], "screening": ["wearable"]}
    assert withdraw(client, individual).json()["allowed"]["screening"] == []


def test_a_change_is_audited(client, individual, engine):
    put(client, individual, EVERYTHING)
    withdraw(client, individual)
    client.get(f"/consents/{individual}", headers=make_headers())

    rows = read_audit(engine, individual)
    assert [row.action for row in rows] == [
        *("record_consents", "withdraw_consents", "view_consents")
    ]


def test_a_change_by_any_other_writer_is_in_the_history(engine, grant):
    individual = grant("survey")
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE consent SET withdrawn_at = now() WHERE anonymized_id = :id"),
            {"id": individual},
        )

    changes = read_rows(engine, ConsentChange, individual)
    assert [(one.change, one.changed_by) for one in changes] == [
        *(("granted", "postgres"), ("withdrawn", "postgres"))
    ]


# How soon a withdrawal binds


@pytest.fixture
def other_worker(settings, production_version):
    with run_app(settings, MemoryReader()) as client:
        yield client


def screen_until_cached(worker, individual):
    """The notice of the grant itself may still be on its way, and empties the cache again."""
    consents = worker.app.state.services.accountability.consents
    until = time.monotonic() + 20
    while not consents.get_known(individual) and time.monotonic() < until:
        assert screen_once(worker, individual) == 200
    assert consents.get_known(individual)


def test_a_withdrawal_binds_in_every_worker_within_a_second(client, other_worker, individual):
    put(client, individual, EVERYTHING)
    for worker in (client, other_worker):
        screen_until_cached(worker, individual)

    withdraw(client, individual)
    time.sleep(BOUND_SECONDS)
    assert screen_once(other_worker, individual) == screen_once(client, individual) == 403


def test_a_withdrawal_by_ingestion_binds_too(client, engine, grant):
    individual = grant()
    screen_until_cached(client, individual)
    with engine.begin() as connection:
        statement = text("UPDATE consent SET withdrawn_at = now() WHERE anonymized_id = :id")
        connection.execute(statement, {"id": individual})

    time.sleep(BOUND_SECONDS)
    assert screen_once(client, individual) == 403


def test_a_worker_that_hears_nothing_any_more_asks_the_database(client, other_worker, individual):
    put(client, individual, EVERYTHING)
    screen_until_cached(other_worker, individual)
    other_worker.app.state.services.accountability.changes.stop()

    withdraw(client, individual)
    time.sleep(BOUND_SECONDS)
    assert screen_once(other_worker, individual) == 403


def test_a_worker_whose_connection_is_cut_listens_again(
    database_url, engine, client, individual, other_worker
):
    held = other_worker.app.state.services.accountability
    with engine.begin() as connection:
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT 1'")
        )
    until = time.monotonic() + 20
    while not held.changes.is_fresh and time.monotonic() < until:
        time.sleep(0.05)
    put(client, individual, EVERYTHING)
    screen_until_cached(other_worker, individual)
    withdraw(client, individual)
    time.sleep(BOUND_SECONDS)
    assert screen_once(other_worker, individual) == 403


def test_a_refused_screening_counts_as_a_consent_failure(client, individual, engine):
    def read_failures():
        lines = client.get("/metrics").text.splitlines()
        return float(
            next(line for line in lines if line.startswith("mhras_consent_failures_total")).split()[
                1
            ]
        )

    before = read_failures()
    assert screen_once(client, individual) == 403

    assert read_failures() == before + 1
    assert read_audit(engine, individual)[0].details == {"reason": "consent-missing"}


def test_consents_about_to_expire_are_counted(client, engine, grant, settings):
    from serving.queue_metrics import QueueMetrics

    with engine.begin() as connection:
        connection.execute(text("DELETE FROM consent"))
    now = datetime.now(UTC)
    grant("survey", expires_at=now + timedelta(days=6))
    grant("survey", expires_at=now + timedelta(days=8))
    grant("survey", expires_at=now + timedelta(days=6), withdrawn_at=now)
    QueueMetrics(engine).refresh()

    assert "mhras_consents_expiring 1.0" in client.get("/metrics").text


def test_whom_to_ask_again_is_listed_audited_and_no_longer_once_asked(client, engine, grant):
    individual = grant("survey", expires_at=datetime.now(UTC) + timedelta(days=3))
    now = datetime.now(UTC)
    with Session(engine) as session, session.begin():
        found = find_unnoticed(session, EXPIRING, now, 1000)
        give_notices(session, EXPIRING, found, FlowActor("a flow"), now)

    def list_people():
        found = client.get("/consents", headers=make_headers(), params={"limit": 500}).json()
        return {item["anonymized_id"] for item in found["items"]}

    assert individual in list_people()
    state = client.get(f"/consents/{individual}", headers=make_headers()).json()
    assert [notice["kind"] for notice in state["notices"]] == ["expiring"]
    with Session(engine) as session:
        listed = AuditRow.details.contains({"individuals": [individual]})
        rows = session.scalars(select(AuditRow).where(AuditRow.action == "list_expiring", listed))
        assert len(rows.all()) == 1
    put(client, individual, EVERYTHING)
    assert individual not in list_people()


def test_without_a_database_consents_cannot_be_changed(mlflow_url, individual):
    settings = make_settings("postgresql://mhras:hidden@127.0.0.1:1/mhras", mlflow_url)
    with run_app(settings, MemoryReader()) as client:
        assert put(client, individual, EVERYTHING).status_code == 503


def test_a_clinic_records_consent_and_screens_by_its_own_identifier(client, engine, capfd):
    patient_id, later = f"Clinic-{uuid.uuid4().hex}", "2099-01-01T00:00:00Z"
    grant = {"data_types": ["survey"], "purposes": ["screening"], "expires_at": later}
    refused = client.post(
        "/screen",
        json={"patient_id": patient_id, "survey_data": {"phq9": LOW_ANSWERS}},
        headers=make_headers(),
    )
    body = {"patient_id": patient_id, "grants": [grant]}
    recorded = client.post("/consents", json=body, headers=make_headers()).json()
    found = client.post(
        "/individuals/lookup", json={"patient_id": patient_id}, headers=make_headers()
    ).json()
    answer = client.post(
        "/screen",
        json={"patient_id": patient_id, "survey_data": {"phq9": LOW_ANSWERS}},
        headers=make_headers(),
    ).json()

    assert refused.status_code == 403
    assert "POST /consents" in refused.json()["detail"]
    assert recorded["anonymized_id"] == found["anonymized_id"] == answer["anonymized_id"]
    actions = [row.action for row in read_audit(engine, answer["anonymized_id"])]
    assert {"record_consents", "look_up_individual", "generate_risk_score"} <= set(actions)
    assert patient_id not in capfd.readouterr().out


def test_a_consent_of_nobody_or_of_two_is_refused(client):
    grant = {"data_types": ["survey"], "purposes": ["screening"], "expires_at": "2099-01-01T00:00Z"}
    for named in ({}, {"patient_id": "1", "anonymized_id": "a" * 32}):
        response = client.post(
            "/consents", json={"grants": [grant]} | named, headers=make_headers()
        )
        assert response.status_code == 422
