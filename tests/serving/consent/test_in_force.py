import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.orm import Session

from feature_repo.consent_terms import SCREENING, TRAINING
from serving.consent.in_force import (
    combine_consents,
    is_in_force,
    read_allowed,
    read_consents,
    read_consents_of,
    select_in_force,
    was_in_force,
)
from serving.database.tables import Consent

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def make_consent(*data_types, purposes=(SCREENING,), **changes):
    values = {
        "granted_at": NOW - DAY,
        "expires_at": NOW + DAY,
        "data_types": list(data_types),
        "purposes": list(purposes),
    }
    return Consent(**(values | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"expires_at": NOW},
        {"granted_at": NOW + timedelta(seconds=1)},
        {"withdrawn_at": NOW},
        {"withdrawn_at": NOW - DAY},
        {"purposes": (TRAINING,)},
    ],
    ids=["expired", "not yet granted", "withdrawn now", "withdrawn before", "other purpose"],
)
def test_a_consent_that_is_not_in_force_allows_nothing(changes):
    assert combine_consents([make_consent("survey", **changes)], SCREENING, NOW) == frozenset()


def test_without_a_consent_nothing_is_allowed():
    assert combine_consents([], SCREENING, NOW) == frozenset()


def test_a_consent_allows_its_data_types_until_the_moment_it_ends():
    consent = make_consent("survey", expires_at=NOW + timedelta(seconds=1))

    assert combine_consents([consent], SCREENING, NOW) == {"survey"}


def test_consents_in_force_add_up_by_purpose():
    consents = [
        make_consent("survey", purposes=(SCREENING, TRAINING)),
        make_consent("wearable"),
        make_consent("emr", purposes=(TRAINING,)),
    ]

    assert combine_consents(consents, SCREENING, NOW) == {"survey", "wearable"}
    assert combine_consents(consents, TRAINING, NOW) == {"survey", "emr"}


def test_only_the_individuals_own_consents_count(engine, grant):
    individual = grant("survey")
    grant("emr")

    with Session(engine) as session:
        known = read_consents(session, individual)
    assert combine_consents(known, SCREENING, datetime.now(UTC)) == {"survey"}


def test_consents_of_several_individuals_are_read_apart(session, grant):
    survey, emr, unknown = grant("survey"), grant("emr"), uuid.uuid4().hex
    known = read_consents_of(session, [survey, emr, unknown])

    assert {one: [terms.data_types for terms in known[one]] for one in known} == {
        survey: [("survey",)],
        emr: [("emr",)],
        unknown: [],
    }
    assert known[survey] == read_consents(session, survey)


def test_a_consent_is_read_with_all_its_terms(session, individual):
    terms = {"granted_at": NOW - DAY, "expires_at": NOW, "withdrawn_at": NOW - DAY / 2}
    consent = make_consent("survey", "emr", purposes=(TRAINING, SCREENING), **terms)
    consent.anonymized_id, consent.key_id = individual, "0" * 8
    session.add(consent)

    (read,) = read_consents(session, individual)
    assert {name: getattr(read, name) for name in terms} == terms
    assert (read.data_types, read.purposes) == (("survey", "emr"), (TRAINING, SCREENING))


def test_what_each_of_several_individuals_allows_now_is_read_by_purpose(session, grant):
    now = datetime.now(UTC)
    allows, ended = grant("survey", "emr"), grant("survey", expires_at=now - DAY)
    trains, later = grant("emr", purposes=(TRAINING,)), grant("emr", granted_at=now + DAY)

    assert read_allowed(session, [allows, ended, trains, later], SCREENING) == {
        allows: {"survey", "emr"},
        ended: frozenset(),
        trains: frozenset(),
        later: frozenset(),
    }


INSTANTS = st.sampled_from([NOW + step * DAY for step in (-2, -1, 0, 1, 2)])


@given(granted=INSTANTS, expires=INSTANTS, withdrawn=st.none() | INSTANTS, at=INSTANTS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_sql_and_python_agree_on_what_is_in_force(engine, granted, expires, withdrawn, at):
    person = uuid.uuid4().hex
    consent = make_consent("survey", granted_at=granted, expires_at=expires, withdrawn_at=withdrawn)
    consent.anonymized_id, consent.key_id = person, "0" * 8
    with Session(engine) as session:
        session.add(consent)
        session.flush()
        statement = select(Consent).where(Consent.anonymized_id == person, select_in_force(at))
        selected = session.scalars(statement).first() is not None

        assert selected is is_in_force(consent, at)
        session.rollback()


def test_a_recorded_withdrawal_binds_even_when_the_clock_is_behind():
    behind = make_consent("survey", withdrawn_at=NOW + timedelta(minutes=5))

    assert combine_consents([behind], SCREENING, NOW) == frozenset()


def test_records_of_the_past_show_the_consent_of_that_time():
    withdrawn_since = make_consent("survey", withdrawn_at=NOW + DAY / 2)

    assert was_in_force(withdrawn_since, NOW) is True
    assert was_in_force(withdrawn_since, NOW + DAY / 2) is False


@pytest.mark.parametrize(
    ("at", "in_force"), [(NOW - DAY, True), (NOW + DAY, False), (NOW - 2 * DAY, False)]
)
def test_a_consent_of_the_past_held_from_its_grant_until_its_end(at, in_force):
    assert was_in_force(make_consent("survey"), at) is in_force
