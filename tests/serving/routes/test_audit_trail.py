"""The trail as auditors read it: pages, verification, export, compliance report."""

import json
import uuid
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import text

from serving.audit.chain import GENESIS, ROW_COLUMNS, hash_row
from serving.roles import Role
from tests.fixtures.api import (
    AT_INSERT,
    LOW_ANSWERS,
    MemoryReader,
    make_headers,
    make_settings,
    run_app,
)
from tests.fixtures.audit_trail import wait_until_sealed

AUDITOR = partial(make_headers, Role.AUDITOR, "auditor_1")
NOWHERE = "postgresql://mhras:hidden@127.0.0.1:1/mhras"


def ask(client, path, **query):
    response = client.get(path, headers=AUDITOR(), params=query)
    assert response.status_code == 200, response.text
    return response


@pytest.mark.parametrize(
    "query",
    [
        {"cursor": "x"},
        {"cursor": "WyI5Il0"},
        {"limit": 0},
        {"limit": 101},
        {"since": "yesterday"},
        {"since": "2026-13-01"},
        {"since": "0001-01-01T00:00:00+14:00"},
        {"until": "9999-12-31T23:59:59-14:00"},
        {"anonymized_id": "P-1"},
        {"event_type": "two words"},
        {"user_id": "x\u0000"},
        {"result": "maybe"},
    ],
    ids=str,
)
def test_an_unusable_question_is_refused(client, query):
    assert client.get("/audit", headers=AUDITOR(), params=query).status_code == 422


@pytest.mark.parametrize("path", ["/audit", "/audit/verify", "/audit/export", "/compliance/report"])
def test_a_reading_that_cannot_be_audited_does_not_happen(client, breaking_trigger, path):
    breaking_trigger("audit_log", AT_INSERT)

    assert client.get(path, headers=AUDITOR()).status_code == 500


@pytest.mark.parametrize("path", ["/audit", "/audit/verify", "/audit/export", "/compliance/report"])
def test_without_a_database_nothing_is_read(mlflow_url, path):
    with run_app(make_settings(NOWHERE, mlflow_url), MemoryReader()) as client:
        assert client.get(path, headers=AUDITOR()).status_code == 503


def test_rows_are_filtered_and_come_in_pages(client, screen, grant):
    individual = grant()
    for _ in range(3):
        screen(individual, LOW_ANSWERS)
    query = {"anonymized_id": individual, "event_type": "screening_request", "limit": 2}
    first = ask(client, "/audit", **query).json()
    second = ask(client, "/audit", **query, cursor=first["next_cursor"]).json()

    rows = first["items"] + second["items"]
    assert (len(rows), second["next_cursor"]) == (3, None)
    assert [row["id"] for row in rows] == sorted((row["id"] for row in rows), reverse=True)
    assert {row["user_role"] for row in rows} == {"clinician"}
    assert {tuple(row["data_types"]) for row in rows} == {("survey",)}


@pytest.mark.parametrize("path", ["/audit", "/audit/export", "/compliance/report"])
def test_an_instant_of_any_time_zone_is_read(client, path):
    # PostgreSQL itself refuses to read offsets of 16 hours and more.
    far = {"since": "2026-01-01T00:00:00+21:28", "until": "2026-02-01T00:00:00-16:00"}

    assert ask(client, path, **far).status_code == 200


def test_rows_are_found_by_time_and_result(client, screen):
    nobody = uuid.uuid4().hex
    began = datetime.now(UTC)
    screen(nobody, LOW_ANSWERS)
    query = {"anonymized_id": nobody, "user_id": "clinician_001"}
    since, until = {"since": began.isoformat()}, {"until": began.isoformat()}

    (row,) = ask(client, "/audit", **query, **since, result="failure").json()["items"]
    assert row["event_type"] == "access_refused"
    assert ask(client, "/audit", **query, **since, result="success").json()["items"] == []
    assert ask(client, "/audit", **query, **until).json()["items"] == []


def test_reading_the_trail_is_in_the_trail(client):
    ask(client, "/audit")
    rows = ask(client, "/audit", event_type="audit_access", user_id="auditor_1").json()["items"]

    assert rows[0]["action"] == "list_audit_rows"


def test_the_running_service_seals_what_it_records_and_verifies_it(client, screen, grant, engine):
    screen(grant(), LOW_ANSWERS)
    wait_until_sealed(engine)
    found = ask(client, "/audit/verify").json()

    assert (found["intact"], found["findings"]) == (True, [])
    assert found["rows"] > 0


def test_a_tampered_row_is_told_by_the_endpoint(client, screen, grant, engine):
    individual = grant()
    screen(individual, LOW_ANSWERS)
    wait_until_sealed(engine)
    change = "UPDATE audit_log SET user_id = :user WHERE anonymized_id = :id"
    set_role = text("SET LOCAL session_replication_role = replica")
    with engine.begin() as connection:
        connection.execute(set_role)
        connection.execute(text(change), {"user": "someone_else", "id": individual})
    found = ask(client, "/audit/verify").json()
    with engine.begin() as connection:
        connection.execute(set_role)
        connection.execute(text(change), {"user": "clinician_001", "id": individual})

    assert (found["intact"], [one["kind"] for one in found["findings"]]) == (False, ["row_changed"])
    assert ask(client, "/audit/verify").json()["intact"]


def test_an_export_can_be_verified_by_anybody(client, screen, grant, engine):
    screen(grant(), LOW_ANSWERS)
    wait_until_sealed(engine)
    response = ask(client, "/audit/export")
    lines = [json.loads(line) for line in response.text.splitlines()]

    assert response.headers["Content-Type"].startswith("application/x-ndjson")
    assert lines[-1] == {"end": True, "rows": len(lines) - 1}
    sealed = sorted((row for row in lines[:-1] if row["position"]), key=lambda row: row["position"])
    previous = GENESIS
    for row in sealed:
        moment = datetime.fromisoformat(row["created_at"])
        columns = {name: row[name] for name in ROW_COLUMNS} | {"created_at": moment}
        assert hash_row(previous, columns).hex() == row["row_hash"]
        previous = bytes.fromhex(row["row_hash"])


def test_an_export_of_a_period_holds_no_other_rows(client):
    lines = ask(client, "/audit/export", until="2001-01-01T00:00:00Z").text.splitlines()

    assert [json.loads(line) for line in lines] == [{"end": True, "rows": 0}]


# Compliance report


def test_a_period_that_ends_before_it_begins_is_refused(client):
    query = {"since": "2026-02-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"}
    assert client.get("/compliance/report", headers=AUDITOR(), params=query).status_code == 422


def test_the_report_counts_a_period(client, screen, grant, production_version):
    began = datetime.now(UTC)
    first, second = grant(), grant()
    prediction = screen(first, [0] * 8 + [1]).json()["prediction_id"]
    screen(second, LOW_ANSWERS)
    screen(uuid.uuid4().hex, LOW_ANSWERS)
    clinician, admin = make_headers(), make_headers(Role.ADMIN)
    path = f"/screen/{prediction}/crisis-override"
    review = client.post(path, json={"comment": "x"}, headers=clinician).json()["review_id"]
    client.post(f"/reviews/{review}/decision", json={"decision": "agree"}, headers=clinician)
    client.get("/reviews", headers=AUDITOR())
    client.get("/reviews")
    client.delete(f"/individuals/{second}", headers=admin)
    ended = datetime.now(UTC) + timedelta(seconds=1)
    query = {"since": began.isoformat(), "until": ended.isoformat()}
    report = ask(client, "/compliance/report", **query).json()

    assert report["screenings"] == 2
    assert report["screenings_by_band"]["critical"] == 1
    assert report["refusals_by_reason"] == {"consent-missing": 1, "role-not-allowed": 1}
    assert (report["consent_failures"], report["unauthenticated_requests"]) == (1, 1)
    assert report["review_decisions"] == {"agree": 1}
    assert (report["crisis_overrides"], report["erasures"]) == (1, 1)
    assert report["erasures_waiting_by_store"]["lake"] >= 1
    assert report["releases_in_use"] == {str(production_version): 1}, "the erased are not counted"
    assert report["events"]["screening_request"] == 2, "the trail still does"
    assert report["active_users_by_role"]["clinician"] == 1
    assert report["audit_trail"]["sealed_rows"] + report["audit_trail"]["unsealed_rows"] > 0


def test_the_report_as_a_page_loads_nothing(client):
    response = ask(client, "/compliance/report", format="html")

    assert response.headers["Content-Type"].startswith("text/html")
    assert response.text.startswith("<!doctype html>")
    assert not any(
        word in response.text for word in ("http:", "https:", "<script", "<link", "src=")
    )


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_a_date_without_a_zone_is_a_day_of_the_configured_zone(application_url, mlflow_url, zone):
    settings = make_settings(application_url, mlflow_url, MHRAS_TIMEZONE=zone)
    query = {"since": "2026-01-01", "until": "2026-04-01T00:00:00"}
    with run_app(settings, None) as client:
        report = client.get("/compliance/report", headers=AUDITOR(), params=query).json()
    begin, end = ("05", "04") if zone != "UTC" else ("00", "00")

    assert report["since"] == f"2026-01-01T{begin}:00:00Z"
    assert report["until"] == f"2026-04-01T{end}:00:00Z"


def test_rows_of_the_present_moment_are_marked(client):
    report = client.get("/compliance/report", headers=AUDITOR()).json()
    page = client.get("/compliance/report?format=html", headers=AUDITOR()).text

    assert "overdue_reviews" in report["as_of_now"]
    assert set(report["as_of_now"]) < set(report)
    assert "Open items past their due time (as of now)" in page
    assert "Crises queued (as of now)" not in page
