"""Which consents end, of which a notice is due, and what is lost by their end."""

import uuid
from datetime import datetime, timedelta

import pytest
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from feature_repo.consent_terms import SCREENING, TRAINING
from serving.consent.changes import EXPIRY_WARNING
from serving.consent.notices import (
    EXPIRED,
    EXPIRING,
    find_lost_types,
    find_unnoticed,
    give_notices,
    list_expiring,
    list_notices,
)
from serving.database.clock import read_database_time
from serving.database.tables import AuditRow, Consent
from serving.errors import FlowActor

DAY = timedelta(days=1)


@pytest.fixture
def session(engine):
    """A session in which there are no consents but those of the test."""
    with Session(engine) as session:
        session.execute(delete(Consent))
        yield session


@pytest.fixture
def now(session) -> datetime:
    return read_database_time(session)


@pytest.fixture
def add(session, now):
    def add_consent(ends_in, person=None, begins_in=-30 * DAY, **changes):
        values = {
            "anonymized_id": person or uuid.uuid4().hex,
            "granted_at": now + begins_in,
            "expires_at": now + ends_in,
            "data_types": ["survey", "emr"],
            "purposes": [SCREENING],
            "key_id": "0" * 8,
        }
        consent = Consent(**(values | changes))
        session.add(consent)
        session.flush()
        return consent

    return add_consent


def notice(session, kind, consents, now):
    give_notices(session, kind, consents, FlowActor("a flow"), now)
    session.flush()


@pytest.mark.parametrize(
    ("ends_in", "expiring", "expired"),
    [
        (EXPIRY_WARNING + DAY, 0, 0),
        (EXPIRY_WARNING, 1, 0),
        (DAY, 1, 0),
        (0 * DAY, 0, 1),
        (-DAY, 0, 1),
    ],
)
def test_a_warning_is_due_for_a_week_and_a_notice_from_the_end_on(
    session, add, now, ends_in, expiring, expired
):
    add(ends_in)

    assert len(find_unnoticed(session, EXPIRING, now, 10)) == expiring
    assert len(find_unnoticed(session, EXPIRED, now, 10)) == expired


def test_a_withdrawn_consent_has_ended_without_a_notice(session, add, now):
    add(DAY, withdrawn_at=now - DAY)
    add(-DAY, withdrawn_at=now - 2 * DAY)

    assert find_unnoticed(session, EXPIRING, now, 10) == []
    assert find_unnoticed(session, EXPIRED, now, 10) == []


@pytest.mark.parametrize(
    ("changes", "due"),
    [
        ({}, 0),
        ({"data_types": ["survey"]}, 1),
        ({"purposes": [TRAINING]}, 1),
        ({"withdrawn_at": datetime.max}, 1),
        ({"begins_in": 20 * DAY}, 1),
    ],
    ids=["whole", "fewer data types", "other purpose", "withdrawn", "after the end"],
)
def test_a_consent_that_a_longer_one_covers_as_a_whole_ends_nothing(
    session, add, now, changes, due
):
    ends = add(DAY)
    if "withdrawn_at" in changes:
        changes = {"withdrawn_at": now}
    add(90 * DAY, ends.anonymized_id, **({"begins_in": -DAY} | changes))

    assert len(find_unnoticed(session, EXPIRING, now, 10)) == due


def test_each_kind_of_notice_is_given_once_and_the_soonest_come_first(session, add, now):
    later, sooner = add(2 * DAY), add(DAY)
    assert find_unnoticed(session, EXPIRING, now, 1) == [sooner]
    notice(session, EXPIRING, [sooner], now)

    assert find_unnoticed(session, EXPIRING, now, 10) == [later]
    assert find_unnoticed(session, EXPIRED, now + 1.5 * DAY, 10) == [sooner]


def test_a_notice_holds_the_terms_of_its_consent_and_is_audited(session, add, now):
    consent = add(DAY)
    notice(session, EXPIRING, [consent], now)

    (given,) = list_notices(session, consent.anonymized_id)
    assert (given.kind, given.noticed_at, given.expires_at) == (EXPIRING, now, now + DAY)
    assert (given.data_types, given.purposes) == (["survey", "emr"], [SCREENING])
    statement = select(AuditRow).where(AuditRow.anonymized_id == consent.anonymized_id)
    row = session.scalars(statement).one()
    assert (row.action, row.user_id, row.data_types) == (
        "warn_of_expiry",
        "a flow",
        ["emr", "survey"],
    )
    assert row.details == {"purposes": [SCREENING], "expires_at": str(now + DAY)}


def test_what_no_other_consent_to_screening_covers_is_lost(session, add):
    ended = add(-DAY)
    person = ended.anonymized_id
    add(90 * DAY, person, begins_in=-DAY, data_types=["survey"])
    add(90 * DAY, person, begins_in=-2 * DAY, data_types=["emr"], purposes=[TRAINING])
    covered = add(-DAY)
    add(90 * DAY, covered.anonymized_id, begins_in=-DAY)

    assert find_lost_types(session, [ended, covered]) == {person: {"emr"}}


def test_warnings_are_listed_while_their_consent_stands_unchanged(session, add, now):
    stands, withdrawn, longer, gone = add(2 * DAY), add(DAY), add(DAY), add(DAY)
    first = add(DAY)
    notice(session, EXPIRING, [stands, withdrawn, longer, gone, first], now)
    withdrawn.withdrawn_at, longer.expires_at = now, now + 300 * DAY
    session.delete(gone)
    session.flush()

    listed = [one.anonymized_id for one in list_expiring(session, 500)]
    assert listed == [first.anonymized_id, stands.anonymized_id]
    assert len(list_expiring(session, 1)) == 1
