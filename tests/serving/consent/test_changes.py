"""Recording and withdrawing consent: what stands afterwards, and since when."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select

from feature_repo.consent_terms import DATA_TYPES, PURPOSES, SCREENING, TRAINING
from serving.consent.changes import (
    EXPIRY_WARNING,
    Grant,
    count_expiring,
    list_current,
    list_history,
    record_grants,
    subtract,
    withdraw,
)
from serving.consent.in_force import combine_consents
from serving.database.clock import read_database_time
from serving.database.tables import Consent

DAY = timedelta(days=1)
NEXT_YEAR = datetime(2099, 1, 1, tzinfo=UTC)
KEY = "01234567"

types = st.frozensets(st.sampled_from(DATA_TYPES))
purposes = st.frozensets(st.sampled_from(PURPOSES))


def make_grant(*data_types, purposes=(SCREENING,), expires_at=NEXT_YEAR):
    return Grant(frozenset(data_types or DATA_TYPES), frozenset(purposes), expires_at)


def record(session, individual, *grants, key_id=KEY, user_id="clinician_001"):
    record_grants(session, individual, grants, key_id, user_id)


def take_away(session, individual, data_type=None, purpose=None, user_id="clinician_002"):
    return withdraw(session, individual, data_type, purpose, user_id)


def add_consent(session, individual, granted_at, data_types=DATA_TYPES, **changes):
    values = {
        "anonymized_id": individual,
        "granted_at": granted_at,
        "expires_at": NEXT_YEAR,
        "data_types": list(data_types),
        "purposes": list(PURPOSES),
        "key_id": KEY,
    }
    session.add(Consent(**(values | changes)))
    session.flush()


def read_all(session, individual):
    statement = select(Consent).where(Consent.anonymized_id == individual)
    return session.scalars(statement.order_by(Consent.granted_at)).all()


def read_current(session, individual):
    return list_current(session, individual, read_database_time(session))


def pairs(grants):
    return {(kind, use) for one in grants for kind in one.data_types for use in one.purposes}


# What is left of a grant


@given(types, purposes, types, purposes)
@settings(deadline=None)
def test_subtracting_leaves_exactly_the_rest(held_types, held_purposes, gone_types, gone_purposes):
    grant = Grant(held_types, held_purposes, NEXT_YEAR)
    left = subtract(grant, gone_types, gone_purposes)

    gone = {(kind, use) for kind in gone_types for use in gone_purposes}
    assert pairs(left) == pairs([grant]) - gone
    assert sum(len(pairs([one])) for one in left) == len(pairs(left))


@given(types, purposes, types, purposes)
@settings(deadline=None)
def test_a_grant_that_loses_nothing_is_left_as_it_was(
    held_types, held_purposes, gone_types, gone_purposes
):
    grant = Grant(held_types, held_purposes, NEXT_YEAR)
    gone = {(kind, use) for kind in gone_types for use in gone_purposes}

    if not pairs([grant]) & gone:
        assert subtract(grant, gone_types, gone_purposes) == [grant]


@pytest.mark.parametrize(
    ("data_types", "purposes", "empty"),
    [((), PURPOSES, True), (DATA_TYPES, (), True), ((), (), True), (DATA_TYPES, PURPOSES, False)],
)
def test_a_grant_without_data_types_or_without_purposes_is_empty(data_types, purposes, empty):
    assert Grant(frozenset(data_types), frozenset(purposes), NEXT_YEAR).is_empty is empty


def test_no_empty_grant_is_left(session, individual):
    record(session, individual, make_grant("survey", purposes=PURPOSES))
    take_away(session, individual, data_type="survey", purpose=TRAINING)

    (left,) = read_current(session, individual)
    assert (left.data_types, left.purposes) == (["survey"], [SCREENING])


# Recording


def test_a_grant_is_in_force_at_once_with_its_terms(session, individual):
    record(session, individual, make_grant("wearable", "emr", purposes=(TRAINING, SCREENING)))

    (consent,) = read_all(session, individual)
    now = read_database_time(session)
    assert now - timedelta(minutes=1) < consent.granted_at <= now
    assert consent.withdrawn_at is None
    assert (consent.data_types, consent.purposes) == (
        ["emr", "wearable"],
        [SCREENING, TRAINING],
    )
    assert (consent.expires_at, consent.key_id) == (NEXT_YEAR, KEY)


def test_grants_of_one_record_are_all_in_force_at_once(session, individual):
    record(session, individual, *(make_grant(kind) for kind in DATA_TYPES))

    found = read_current(session, individual)
    allowed = combine_consents(found, SCREENING, read_database_time(session))
    assert allowed == frozenset(DATA_TYPES)


def test_recording_replaces_what_is_in_force_and_what_begins_later(session, individual):
    now = read_database_time(session)
    add_consent(session, individual, now - DAY)
    add_consent(session, individual, now + DAY)
    record(session, individual, make_grant("survey"))

    (consent,) = read_current(session, individual)
    assert consent.data_types == ["survey"]
    assert [one.withdrawn_at is None for one in read_all(session, individual)] == [
        *(False, True, False)
    ]


def test_recording_leaves_ended_consents_and_other_individuals_alone(session, individual):
    now, other = read_database_time(session), uuid.uuid4().hex
    add_consent(session, individual, now - 2 * DAY, expires_at=now - DAY)
    add_consent(session, individual, now - 3 * DAY, withdrawn_at=now - 2 * DAY)
    add_consent(session, other, now - DAY)
    record(session, individual, make_grant())

    withdrawn, expired, _ = read_all(session, individual)
    assert (withdrawn.withdrawn_at, expired.withdrawn_at) == (now - 2 * DAY, None)
    assert len(read_current(session, other)) == 1


def test_the_history_names_the_writer_of_each_change_oldest_first(session, individual):
    record(session, individual, make_grant("survey", "emr"), user_id="first")
    take_away(session, individual, data_type="emr", user_id="second")

    history = [(one.change, one.changed_by) for one in list_history(session, individual)]
    assert history == [("granted", "first"), ("withdrawn", "second"), ("granted", "second")]
    assert list_history(session, uuid.uuid4().hex) == []


def test_the_writer_is_named_for_one_transaction_alone(session, individual, engine):
    record(session, individual, make_grant(), user_id="first")
    session.commit()
    add_consent(session, individual, read_database_time(session))

    assert list_history(session, individual)[-1].changed_by != "first"


# Withdrawing


def test_withdrawing_everything_ends_every_consent_and_leaves_none(session, individual):
    record(session, individual, make_grant("survey"), make_grant("emr", purposes=PURPOSES))

    assert take_away(session, individual) == 2
    assert read_current(session, individual) == []
    now = read_database_time(session)
    for consent in read_all(session, individual):
        assert now - timedelta(minutes=1) < consent.withdrawn_at <= now


def test_what_a_consent_does_not_hold_cannot_be_withdrawn_from_it(session, individual):
    record(session, individual, make_grant("survey"))
    (before,) = read_all(session, individual)

    assert take_away(session, individual, data_type="emr") == 0
    assert take_away(session, individual, purpose=TRAINING) == 0
    assert read_all(session, individual) == [before]
    assert before.withdrawn_at is None


def test_only_the_consents_that_lose_something_are_touched(session, individual):
    record(session, individual, make_grant("survey"), make_grant("emr"), make_grant("emr"))

    assert take_away(session, individual, data_type="emr") == 2
    (left,) = read_current(session, individual)
    assert left.data_types == ["survey"]


def test_a_withdrawal_leaves_other_individuals_alone(session, individual):
    other = uuid.uuid4().hex
    record(session, other, make_grant())

    assert take_away(session, individual) == 0
    assert len(read_current(session, other)) == 1


def test_what_is_left_keeps_its_end_and_its_key(session, individual):
    record(session, individual, make_grant(purposes=PURPOSES), key_id="76543210")
    take_away(session, individual, data_type="emr", purpose=TRAINING)

    left = read_current(session, individual)
    assert pairs(left) == pairs([make_grant(purposes=PURPOSES)]) - {("emr", TRAINING)}
    assert {(one.expires_at, one.key_id) for one in left} == {(NEXT_YEAR, "76543210")}


def test_what_is_left_of_a_consent_that_begins_later_begins_no_sooner(session, individual):
    begins_at = read_database_time(session) + 30 * DAY
    add_consent(session, individual, begins_at)

    assert take_away(session, individual, data_type="emr", purpose=TRAINING) == 1
    assert take_away(session, individual, data_type="survey", purpose=TRAINING) == 1
    left = read_current(session, individual)
    gone = {("emr", TRAINING), ("survey", TRAINING)}
    assert pairs(left) == pairs([make_grant(purposes=PURPOSES)]) - gone
    assert all(begins_at < one.granted_at < begins_at + timedelta(seconds=1) for one in left)


# Lists and counts


def test_current_consents_are_those_in_force_and_those_to_come_in_order(session, individual):
    now = read_database_time(session)
    for days in (1, -1, 0):
        add_consent(session, individual, now + days * DAY)
    add_consent(session, individual, now - 2 * DAY, expires_at=now)
    add_consent(session, individual, now - 3 * DAY, withdrawn_at=now)

    found = list_current(session, individual, now)
    assert [one.granted_at for one in found] == [now - DAY, now, now + DAY]


@pytest.mark.parametrize(
    ("granted", "expires", "withdrawn", "counted"),
    [
        (-DAY, EXPIRY_WARNING, None, 1),
        (-DAY, EXPIRY_WARNING + DAY, None, 0),
        (-DAY, -DAY / 2, None, 0),
        (DAY, EXPIRY_WARNING, None, 0),
        (-DAY, EXPIRY_WARNING, -DAY / 2, 0),
    ],
    ids=["within a week", "later", "expired", "not begun", "withdrawn"],
)
def test_consents_in_force_that_end_within_a_week_are_counted(
    session, individual, granted, expires, withdrawn, counted
):
    session.execute(delete(Consent))
    now = read_database_time(session)
    assert count_expiring(session) == 0
    changes = {"withdrawn_at": None if withdrawn is None else now + withdrawn}
    add_consent(session, individual, now + granted, expires_at=now + expires, **changes)

    assert count_expiring(session) == counted


def test_the_warning_comes_a_week_ahead():
    assert timedelta(days=7) == EXPIRY_WARNING
