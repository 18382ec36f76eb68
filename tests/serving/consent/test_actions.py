"""Viewing, recording and withdrawing consent: what is returned, and the audit row of each."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from feature_repo.consent_terms import DATA_TYPES, PURPOSES, SCREENING, TRAINING
from serving.audit.trail import Event, record
from serving.consent.actions import record_consents, view_consents, withdraw_consents
from serving.consent.changes import Grant
from serving.consent.notices import EXPIRING, give_notices
from serving.database.clock import read_database_time
from serving.database.tables import AuditRow, Consent
from serving.errors import FlowActor

NEXT_YEAR = datetime(2099, 1, 1, tzinfo=UTC)
SURVEY = Grant(frozenset({"survey"}), frozenset({SCREENING}), NEXT_YEAR)
EMR = Grant(frozenset({"emr", "survey"}), frozenset(PURPOSES), NEXT_YEAR)


class SessionTrail:
    """An audit trail that joins a test's session."""

    def __init__(self, session):
        self._session = session

    def record(self, event: Event) -> None:
        record(self._session, FlowActor("clinician_001", "clinician"), "req_1", event)


@pytest.fixture
def trail(session):
    return SessionTrail(session)


@pytest.fixture
def grant_both(session, trail, individual):
    record_consents(session, trail, individual, [SURVEY, EMR], "01234567", "clinician_001")


def read_rows(session, individual):
    session.flush()
    statement = select(AuditRow).where(AuditRow.anonymized_id == individual)
    return session.scalars(statement.order_by(AuditRow.id)).all()


def test_nothing_is_allowed_of_whom_nothing_is_known(session, trail, individual):
    state = view_consents(session, trail, individual)

    assert state.anonymized_id == individual
    assert state.allowed == {purpose: [] for purpose in PURPOSES}
    assert (state.in_force, state.history, state.notices) == ([], [], [])


def test_a_viewing_is_recorded(session, trail, individual):
    view_consents(session, trail, individual)

    (row,) = read_rows(session, individual)
    assert (row.event_type, row.action, row.data_types) == (
        *("consent_view", "view_consents"),
        ["consent"],
    )
    assert (row.user_id, row.user_role, row.result, row.request_id) == (
        *("clinician_001", "clinician"),
        *("success", "req_1"),
    )


@pytest.mark.usefixtures("grant_both")
def test_a_recording_is_recorded_with_its_data_types_and_how_many_grants(session, individual):
    (row,) = read_rows(session, individual)

    assert (row.event_type, row.action) == ("consent_change", "record_consents")
    assert (row.data_types, row.details) == (["emr", "survey"], {"grants": 2})


@pytest.mark.usefixtures("grant_both")
@pytest.mark.parametrize(
    ("data_type", "purpose", "data_types", "touched"),
    [("emr", None, ["emr"], 1), (None, TRAINING, ["consent"], 1), (None, None, ["consent"], 2)],
)
def test_a_withdrawal_is_recorded_with_its_scope_and_how_many_consents_it_touched(
    session, trail, individual, data_type, purpose, data_types, touched
):
    withdraw_consents(session, trail, individual, data_type, purpose, "clinician_002")

    row = read_rows(session, individual)[-1]
    assert (row.event_type, row.action) == ("consent_change", "withdraw_consents")
    assert row.data_types == data_types
    assert row.details == {"data_type": data_type, "purpose": purpose, "consents": touched}


@pytest.mark.usefixtures("grant_both")
def test_the_state_holds_what_is_allowed_what_it_rests_on_and_its_history(
    session, trail, individual
):
    withdraw_consents(session, trail, individual, "survey", TRAINING, "clinician_002")
    state = view_consents(session, trail, individual)

    assert state.allowed == {SCREENING: ["emr", "survey"], TRAINING: ["emr"]}
    assert sorted(tuple(one.data_types) for one in state.in_force) == [
        *(("emr",), ("survey",), ("survey",))
    ]
    assert [(one.change, one.changed_by) for one in state.history] == [
        *(("granted", "clinician_001"), ("granted", "clinician_001")),
        ("withdrawn", "clinician_002"),
        *(("granted", "clinician_002"), ("granted", "clinician_002")),
    ]


def test_a_consent_that_begins_later_allows_nothing_yet(session, trail, individual):
    now = read_database_time(session)
    terms = {"data_types": list(DATA_TYPES), "purposes": list(PURPOSES), "key_id": "0" * 8}
    begins_at = now + timedelta(days=1)
    session.add(
        Consent(anonymized_id=individual, granted_at=begins_at, expires_at=NEXT_YEAR, **terms)
    )
    session.flush()
    state = view_consents(session, trail, individual)

    assert (state.allowed, state.in_force) == ({purpose: [] for purpose in PURPOSES}, [])
    assert [one.granted_at for one in state.history] == [begins_at]


@pytest.mark.usefixtures("grant_both")
def test_the_state_holds_the_notices_of_the_individual_alone(session, trail, individual):
    consents = session.scalars(select(Consent).where(Consent.anonymized_id == individual)).all()
    give_notices(session, EXPIRING, consents[:1], FlowActor("a flow"), NEXT_YEAR)
    session.flush()

    (notice,) = view_consents(session, trail, individual).notices
    assert (notice.kind, notice.noticed_at) == ("expiring", NEXT_YEAR)
    assert view_consents(session, trail, uuid.uuid4().hex).notices == []
