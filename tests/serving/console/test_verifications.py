"""A verification that outlasts its request: 202, one at a time, its result later, none lost."""

import uuid
from contextlib import contextmanager

import pytest
from sqlalchemy import text

from serving.audit import jobs
from serving.roles import Role
from tests.fixtures.api import AT_INSERT, make_headers
from tests.fixtures.audit_trail import wait_until_sealed


@pytest.fixture(autouse=True)
def short_patience(monkeypatch):
    monkeypatch.setattr(jobs, "WAIT_SECONDS", 0.4)


@pytest.fixture
def auditor(client):
    headers = make_headers(Role.AUDITOR, f"auditor.{uuid.uuid4().hex[:8]}")
    return lambda path: client.get(path, headers=headers)


@contextmanager
def long_trail(engine):
    """Hold the chain, so that no verification can read it: as one of many rows it takes long."""
    with engine.begin() as connection:
        connection.execute(text("LOCK TABLE audit_chain IN ACCESS EXCLUSIVE MODE"))
        yield


def wait_for(auditor, location):
    for _ in range(20):
        answer = auditor(location)
        if answer.status_code == 200:
            return answer.json()
    raise AssertionError(answer.text)


def test_a_long_verification_is_answered_with_where_its_result_will_be(auditor, engine):
    with long_trail(engine):
        answer = auditor("/audit/verify")
        location = answer.headers["Location"]
        later = auditor(location)

    assert (answer.status_code, later.status_code) == (202, 202)
    assert answer.headers["Retry-After"] == "5"
    assert location == f"/audit/verify/{answer.json()['job_id']}"
    found = wait_for(auditor, location)
    assert found["intact"]
    assert found["started_at"] < found["finished_at"]


def test_one_verification_runs_at_a_time_and_others_join_it(auditor, engine):
    with long_trail(engine):
        first, second = auditor("/audit/verify"), auditor("/audit/verify")

    assert first.json()["job_id"] == second.json()["job_id"]
    wait_for(auditor, first.headers["Location"])


def test_the_last_result_is_shown_while_the_next_is_under_way(auditor, engine, screen, grant):
    screen(grant(), [0] * 9)
    wait_until_sealed(engine)
    before = wait_for(auditor, "/audit/verify")
    with long_trail(engine):
        pending = auditor("/audit/verify").json()

    assert pending["last"]["finished_at"] == before["finished_at"]
    assert pending["last"]["intact"]
    wait_for(auditor, f"/audit/verify/{pending['job_id']}")


def test_a_verification_whose_worker_ended_is_no_longer_waited_for(auditor, engine):
    lost = uuid.uuid4()
    start = "INSERT INTO audit_verifications VALUES (:id, now(), 'auditor', NULL, NULL)"
    with engine.begin() as connection:
        connection.execute(text(start), {"id": lost})

    assert auditor(f"/audit/verify/{lost}").status_code == 404
    assert wait_for(auditor, "/audit/verify")["finished_at"]


def test_an_unknown_verification_is_not_found(auditor):
    assert auditor(f"/audit/verify/{uuid.uuid4()}").status_code == 404


def test_the_page_shows_a_verification_that_runs_and_then_its_result(visit, engine):
    admin = visit().sign_in(Role.AUDITOR, "rev.iewer")
    with long_trail(engine):
        page = admin.get("/console/audit/verification").text

    assert "has not finished" in page
    link = page.partition('href="/console/audit/verification?job=')[2].partition('"')[0]
    for _ in range(20):
        page = admin.get(f"/console/audit/verification?job={link}").text
        if "Running" not in page:
            break
    assert "Intact" in page
    assert "by rev.iewer" in page


def test_the_page_counts_the_traces_of_tampering(visit, engine, screen, grant):
    person = grant()
    screen(person, [0] * 9)
    wait_until_sealed(engine)
    reviewer = visit().sign_in(Role.AUDITOR, "rev.iewer")
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        change = "UPDATE audit_log SET user_id = 'someone_else' WHERE anonymized_id = :id"
        connection.execute(text(change), {"id": person})
    page = reviewer.get("/console/audit/verification").text
    if "Running" in page:
        job = page.partition('href="/console/audit/verification?job=')[2].partition('"')[0]
        page = reviewer.get(f"/console/audit/verification?job={job}").text

    assert "traces of tampering were found." in page


def test_a_verification_that_cannot_read_the_trail_is_lost_and_holds_up_no_other(
    auditor, engine, monkeypatch
):
    monkeypatch.setattr(jobs, "STATEMENT_SECONDS", 1)
    with long_trail(engine):
        location = auditor("/audit/verify").headers["Location"]
        statuses = [auditor(location).status_code for _ in range(10)]
    assert statuses[-1] == 404

    assert wait_for(auditor, "/audit/verify")["finished_at"]


def test_a_verification_whose_row_cannot_be_written_holds_up_no_other(
    auditor, engine, breaking_trigger
):
    breaking_trigger("audit_verifications", AT_INSERT)
    assert auditor("/audit/verify").status_code >= 500
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE audit_verifications DISABLE TRIGGER broken"))

    assert wait_for(auditor, "/audit/verify")["finished_at"]


def test_a_verification_that_another_worker_is_just_starting_is_a_conflict(
    auditor, engine, monkeypatch
):
    """That worker has the lock, and no row yet."""
    monkeypatch.setattr(jobs, "ROW_SECONDS", 0.2)
    wait_for(auditor, "/audit/verify")
    take = text(f"SELECT pg_advisory_xact_lock({jobs.VERIFYING_LOCK})")
    with engine.begin() as connection:
        connection.execute(take)
        answer = auditor("/audit/verify")

    assert answer.status_code == 409
    assert "try again" in answer.json()["detail"]
