"""Rows of the audit trail: what each kind of event leaves in one, and in whose transaction."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from serving.audit.trail import (
    ANONYMOUS,
    CALLER_NETWORK,
    Event,
    UnauthenticatedBudget,
    make_columns,
    record,
    record_refusal,
    record_unauthenticated,
)
from serving.database.tables import AuditRow
from serving.errors import FlowActor, RefusedError

CALLER = FlowActor("clinician_001", "clinician")
EVENT = Event("review_view", "view_review", "a" * 32, ["survey", "emr"], {"review_id": 7})

EVENT_COLUMNS = {
    "event_type": "review_view",
    "user_id": "clinician_001",
    "user_role": "clinician",
    "anonymized_id": "a" * 32,
    "data_types": ["emr", "survey"],
    "action": "view_review",
    "result": "success",
    "request_id": "req_1",
    "details": {"review_id": 7},
    "network": None,
}


def read_rows(trail):
    with trail.owner.connect() as connection:
        return connection.execute(text("SELECT * FROM audit_log ORDER BY id")).mappings().all()


def read_only_row(trail):
    (row,) = read_rows(trail)
    return row


@pytest.fixture
def network():
    token = CALLER_NETWORK.set("192.0.2.7")
    yield "192.0.2.7"
    CALLER_NETWORK.reset(token)


@pytest.fixture
def refusal():
    return RefusedError("may not read this", CALLER, "read_reviews", "a" * 32)


def test_a_row_joins_the_transaction_of_what_it_records(trail):
    with Session(trail.application) as session:
        record(session, CALLER, "req_1", EVENT)
        session.flush()
        session.rollback()

    assert read_rows(trail) == []


def test_a_row_says_who_did_what_to_whose_data(trail, network):
    with Session(trail.application) as session, session.begin():
        record(session, CALLER, "req_1", EVENT)

    row = read_only_row(trail)
    assert {name: row[name] for name in EVENT_COLUMNS} == EVENT_COLUMNS | {"network": network}
    assert abs(datetime.now(UTC) - row["created_at"]) < timedelta(minutes=1)


def test_outside_of_requests_a_row_has_no_network():
    columns = make_columns("clinician_001", "clinician", "success", "req_1", EVENT)
    created_at = columns.pop("created_at")

    assert columns == EVENT_COLUMNS
    assert created_at.tzinfo is UTC


def test_a_row_has_every_column_that_the_database_does_not_fill():
    columns = make_columns("u", "r", "success", None, EVENT)

    assert set(columns) == set(AuditRow.__table__.columns.keys()) - {"id"}


def test_a_refusal_is_committed_by_itself_with_its_reason(trail, refusal):
    record_refusal(trail.application, refusal, "req_2")

    row = read_only_row(trail)
    assert (row["event_type"], row["action"], row["result"]) == (
        *("access_refused", "read_reviews"),
        "failure",
    )
    assert (row["user_id"], row["user_role"]) == ("clinician_001", "clinician")
    assert (row["anonymized_id"], row["request_id"]) == ("a" * 32, "req_2")
    assert (row["data_types"], row["details"]) == ([], {"reason": refusal.kind})


def test_a_caller_without_a_token_is_recorded_with_how_many_were_not(trail):
    record_unauthenticated(trail.application, "GET /reviews", "req_3", 4)

    row = read_only_row(trail)
    assert (row["event_type"], row["action"], row["result"]) == (
        *("unauthenticated_request", "GET /reviews"),
        "failure",
    )
    assert (row["user_id"], row["user_role"]) == (ANONYMOUS, "none")
    assert (row["anonymized_id"], row["request_id"]) == (None, "req_3")
    assert row["details"] == {"reason": "unauthenticated", "suppressed": 4}


# How many callers without a token are recorded


@pytest.fixture
def clock(monkeypatch):
    """The seconds that a budget reads, moved by a test."""
    now = [1_000.0]
    monkeypatch.setattr("serving.audit.trail.time.monotonic", lambda: now[0])
    return now


def test_five_callers_a_second_are_recorded(clock):
    budget = UnauthenticatedBudget()

    assert [budget.take() for _ in range(7)] == [0, 0, 0, 0, 0, None, None]


def test_the_next_second_has_a_budget_of_its_own_and_counts_what_was_left_out(clock):
    budget = UnauthenticatedBudget(rows_per_second=2)
    assert [budget.take() for _ in range(5)] == [0, 0, None, None, None]
    clock[0] += 1

    assert [budget.take() for _ in range(3)] == [3, 0, None]
    clock[0] += 1
    assert budget.take() == 1


def test_within_one_second_the_budget_is_not_renewed(clock):
    budget = UnauthenticatedBudget(rows_per_second=1)
    assert budget.take() == 0
    clock[0] += 0.9

    assert budget.take() is None
