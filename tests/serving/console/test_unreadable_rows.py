"""A row of the trail that Python cannot hold: every page that shows rows names it and stays."""

from functools import partial

import pytest
from sqlalchemy import create_engine, text

from serving.compliance.report import MOST_SUPPRESSED
from serving.roles import Role
from tests.fixtures.api import HIGH_ANSWERS, make_headers
from tests.fixtures.audit_trail import wait_until_sealed
from tests.fixtures.console import read_text
from tests.fixtures.unreadable_rows import SHAPES, write_unreadable

AUDITOR = partial(make_headers, Role.AUDITOR, "auditor_1")
TIME = "a year above 9999"


@pytest.fixture(scope="module", params=SHAPES)
def shape(request):
    return request.param


@pytest.fixture
def person(application_url, grant, shape):
    """A person with such a row, written as the API reaches the database."""
    individual = grant()
    engine = create_engine(application_url)
    write_unreadable(engine, shape, anonymized_id=individual)
    engine.dispose()
    return individual


def test_the_trail_and_the_access_history_name_the_value(client, person, shape):
    column = SHAPES[shape][0]
    for path, query in (
        ("/audit", {"anonymized_id": person}),
        (f"/individuals/{person}/access-history", {}),
    ):
        response = client.get(path, params=query, headers=AUDITOR())
        assert response.status_code == 200, response.text
        (row,) = response.json()["items"][-1:]
        assert row["unreadable"] == [column]
        assert row.get(column) is None


def test_the_pages_of_the_console_name_the_value(visit, person, shape):
    auditor = visit().sign_in(Role.AUDITOR)
    shown = SHAPES[shape][0].replace("_", " ")
    for path in (
        f"/console/audit?individual={person}",
        f"/console/individuals/{person}/access-history",
    ):
        page = auditor.get(path)
        assert page.status_code == 200, page.text
        assert f"cannot be read: {shown}" in read_text(page)


def test_the_event_of_the_row_has_no_value_in_its_place(client, person, shape):
    response = client.get("/fhir/AuditEvent", params={"patient": person}, headers=AUDITOR())
    events = [entry["resource"] for entry in response.json()["entry"]]
    absent = [event for event in events if "recorded" not in event]

    assert response.status_code == 200
    assert len(absent) == (SHAPES[shape][0] == "created_at")
    for event in absent:
        assert event["_recorded"]["extension"][0]["valueCode"] == "error"


def test_the_export_and_the_verification_name_the_row(client, person, engine):
    wait_until_sealed(engine)
    export = client.get("/audit/export", headers=AUDITOR())
    found = client.get("/audit/verify", headers=AUDITOR()).json()

    assert export.text.count('"unreadable":{') == found["finding_count"] > 0
    assert {one["kind"] for one in found["findings"]} == {"rows_unreadable"}


def test_a_passport_shows_a_viewing_whose_time_cannot_be_read(
    client, application_url, grant, screen
):
    individual = grant()
    number = screen(individual, HIGH_ANSWERS).json()["prediction_id"]
    engine = create_engine(application_url)
    details = f'{{"prediction_id": "{number}"}}'
    write_unreadable(
        engine, TIME, anonymized_id=individual, event_type="prediction_view", details=details
    )
    engine.dispose()
    response = client.get(f"/predictions/{number}/passport", headers=make_headers(Role.AUDITOR))

    assert response.status_code == 200, response.text
    assert response.json()["viewed"][0]["created_at"] is None


@pytest.mark.parametrize("suppressed", ['"x"', "9" * 5_000, "-5", "null", "[]"], ids=len)
def test_the_report_counts_a_row_whose_count_is_none(client, application_url, suppressed):
    before = client.get("/compliance/report", headers=AUDITOR()).json()
    engine = create_engine(application_url)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO audit_log (created_at, event_type, user_id, user_role, data_types,"
                " action, result, details) VALUES (now(), 'unauthenticated_request', 'u', 'none',"
                " '{}', 'a', 'failure', jsonb_build_object('suppressed', CAST(:given AS jsonb)))"
            ),
            {"given": suppressed},
        )
    engine.dispose()
    after = client.get("/compliance/report", headers=AUDITOR())

    assert after.status_code == 200, after.text
    counted = after.json()["unauthenticated_requests"] - before["unauthenticated_requests"]
    assert 1 <= counted <= MOST_SUPPRESSED + 1


def test_the_report_has_no_time_of_a_checkpoint_whose_time_cannot_be_read(client, application_url):
    engine = create_engine(application_url)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO audit_checkpoints (position, signed_at, document)"
                " VALUES (4611686018427387904, TIMESTAMPTZ '12000-01-01', '{}')"
            )
        )
    engine.dispose()
    response = client.get("/compliance/report", headers=AUDITOR())

    assert response.status_code == 200, response.text
    assert response.json()["audit_trail"]["signed_at"] is None
