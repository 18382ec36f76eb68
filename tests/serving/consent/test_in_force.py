from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.orm import Session

from serving.consent.in_force import SCREENING, TRAINING, combine_consents, read_consents
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


def test_a_consent_allows_its_data_types_until_the_moment_it_is_withdrawn():
    consent = make_consent("survey", withdrawn_at=NOW + timedelta(seconds=1))

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
