"""A consent is warned of once, ends at its instant, and then nothing of it is left to serve."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
from sqlalchemy import Engine, create_engine, delete, select, update
from sqlalchemy.orm import Session

from feature_repo.catalogue import describe_stored_views
from feature_repo.demographics import demographics
from feature_repo.online import open_reader
from feature_repo.online_store import REPOSITORY
from feature_repo.survey_history import survey_history
from feature_repo.wearable_windows import wearable_windows
from flows import consent_expiry
from flows.consent_expiry import ExpiryCounts, watch_consents
from flows.lake.consents import page_consenting
from serving.consent.notices import list_expiring
from serving.database.tables import AuditRow, Consent, ConsentNotice
from tests.fixtures.trained_world import enter_environment, forget_settings, make_variables
from tests.fixtures.webhook import Webhook, webhook

__all__ = ["webhook"]

NOTHING = ExpiryCounts(0, 0, 0)
ALL_VIEWS = {"demographics", "survey_history", "wearable_windows"}


@pytest.fixture(scope="module")
def variables(postgres, prefect_server, tmp_path_factory):
    return make_variables(postgres, tmp_path_factory.mktemp("consents"))


@pytest.fixture
def engine(variables, monkeypatch) -> Iterator[Engine]:
    """The database of consents beside an online store; emptied afterwards."""
    enter_environment(monkeypatch, variables)
    engine = create_engine(variables["DATABASE_URL"])
    yield engine
    with Session(engine) as session, session.begin():
        for table in (ConsentNotice, Consent):
            session.execute(delete(table))
    engine.dispose()
    forget_settings()


def consent(engine: Engine, *data_types: str, ends_in: timedelta, person: str | None = None) -> str:
    """Record a consent to screening; return whose."""
    now = datetime.now(UTC)
    with Session(engine) as session, session.begin():
        row = Consent(
            anonymized_id=person or uuid.uuid4().hex,
            granted_at=now - timedelta(days=100) - ends_in,
            expires_at=now + ends_in,
            data_types=list(data_types or ("survey",)),
            purposes=["screening"],
            key_id="00000000",
        )
        session.add(row)
        return row.anonymized_id


def store_online(person: str) -> None:
    from feature_repo import definitions
    from feature_repo.feast_library import FeatureStore

    store = FeatureStore(repo_path=str(REPOSITORY))
    store.apply([getattr(definitions, name) for name in definitions.__all__])
    now = datetime.now(UTC)
    for view in (demographics, survey_history, wearable_windows):
        values = {feature.name: [1.0] for feature in view.features}
        moments = {"event_timestamp": [now], "created_timestamp": [now]}
        frame = pd.DataFrame({"anonymized_id": [person], **values, **moments})
        store.write_to_online_store(view.name, frame)


def find_online(person: str) -> set[str]:
    reader = open_reader(10)
    found = set(reader.fetch(describe_stored_views(), [person])[person].moments)
    reader.close()
    return found


def read_notices(engine: Engine, person: str) -> list[str]:
    with Session(engine) as session:
        found = select(ConsentNotice.kind).where(ConsentNotice.anonymized_id == person)
        return list(session.scalars(found.order_by(ConsentNotice.noticed_at)))


def read_actions(engine: Engine, person: str) -> list[tuple[str, str]]:
    with Session(engine) as session:
        found = select(AuditRow.action, AuditRow.user_id).where(AuditRow.anonymized_id == person)
        return [tuple(row) for row in session.execute(found.order_by(AuditRow.id))]


def list_told(webhook: Webhook) -> list[str]:
    """Return what was told of consents; that a run has ended is told too."""
    return [message for message in webhook.messages if "consents end" in message]


# What is no end


def test_a_consent_that_lasts_is_neither_warned_of_nor_told(engine, webhook):
    consent(engine, ends_in=timedelta(days=8))

    assert watch_consents() == NOTHING
    assert list_told(webhook) == []


def test_a_consent_that_a_longer_one_covers_ends_nothing(engine):
    person = consent(engine, "survey", ends_in=timedelta(days=3))
    consent(engine, "survey", "emr", ends_in=timedelta(days=300), person=person)

    assert watch_consents() == NOTHING


def test_a_longer_consent_to_something_else_does_not_cover_it(engine):
    person = consent(engine, "survey", ends_in=timedelta(days=3))
    consent(engine, "emr", ends_in=timedelta(days=300), person=person)

    assert watch_consents().expiring == 1
    assert read_notices(engine, person) == ["expiring"]


def test_a_withdrawn_consent_is_not_warned_of(engine):
    person = consent(engine, ends_in=timedelta(days=3))
    with Session(engine) as session, session.begin():
        ended = update(Consent).where(Consent.anonymized_id == person)
        session.execute(ended.values(withdrawn_at=datetime.now(UTC)))

    assert watch_consents() == NOTHING


# Notices


def test_a_warning_is_given_once_audited_and_told_in_counts(engine, webhook):
    people = [consent(engine, ends_in=timedelta(days=6)) for _ in range(3)]

    assert watch_consents() == ExpiryCounts(3, 0, 0)
    assert watch_consents() == NOTHING
    assert read_actions(engine, people[0]) == [("warn_of_expiry", "consent expiry flow")]
    (message,) = list_told(webhook)
    assert "3 consents end within 7 days" in message
    assert not any(person in message for person in people)


def test_pages_of_notices_lose_nobody(engine, monkeypatch):
    monkeypatch.setattr(consent_expiry, "PAGE_SIZE", 2)
    people = [consent(engine, ends_in=timedelta(days=n)) for n in (1, 2, 3, 4, 5)]

    assert watch_consents().expiring == 5
    assert [read_notices(engine, person) for person in people] == [["expiring"]] * 5


def test_a_person_can_see_whom_to_ask_again(engine):
    later, sooner = (consent(engine, ends_in=timedelta(days=days)) for days in (6, 2))
    watch_consents()
    with Session(engine) as session:
        assert [one.anonymized_id for one in list_expiring(session, 10)] == [sooner, later]


# Ends


def test_what_has_ended_is_recorded_once_and_nothing_is_left_online(engine):
    person, other = (consent(engine, ends_in=timedelta(days=days)) for days in (-1, 50))
    for one in (person, other):
        store_online(one)
    assert find_online(person) == ALL_VIEWS

    assert watch_consents() == ExpiryCounts(0, 1, 1)
    assert find_online(person) == set()
    assert find_online(other) == ALL_VIEWS
    assert read_notices(engine, person) == ["expired"]
    assert read_actions(engine, person) == [("end_consent", "consent expiry flow")]
    assert watch_consents() == NOTHING


def test_only_the_data_types_that_ended_leave_the_online_store(engine):
    person = consent(engine, "survey", ends_in=timedelta(days=-1))
    consent(engine, "wearable", ends_in=timedelta(days=50), person=person)
    store_online(person)
    watch_consents()

    assert find_online(person) == {"demographics", "wearable_windows"}


def test_whose_consent_has_ended_is_in_no_batch(engine):
    person = consent(engine, ends_in=timedelta(seconds=-1))
    pages = [page_consenting(engine, bucket, "screening", 10) for bucket in range(16)]

    assert person not in {one for bucket in pages for page in bucket for one in page}


def test_a_store_that_is_away_leaves_the_consent_to_be_ended_later(engine, monkeypatch):
    person = consent(engine, ends_in=timedelta(days=-1))

    def fail(*_arguments):
        raise ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(consent_expiry, "erase_online_rows", fail)
        patch.setattr(consent_expiry, "end", consent_expiry.end.with_options(retries=0))
        with pytest.raises(ConnectionError):
            watch_consents()
    assert read_notices(engine, person) == read_actions(engine, person) == []

    assert watch_consents().expired == 1
