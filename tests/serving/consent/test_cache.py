"""The consents a worker keeps at hand, by a change listener whose lease and notices a test gives.

That notices arrive and leases end by themselves: tests/serving/database/test_changes.py.
"""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event

from serving.database.changes import ChangeListener
from tests.fixtures.consent_cache import cache, listener

__all__ = ["cache", "listener"]


@pytest.fixture
def read(engine, cache):
    return lambda individual: cache.read(engine, [individual])[individual]


@pytest.fixture
def known(read, grant):
    """An individual whose consent the cache keeps."""
    individual = grant("survey")
    read(individual)
    return individual


def test_an_individual_who_was_never_read_is_not_known(cache):
    assert cache.get_known(uuid.uuid4().hex) is None


def test_consents_that_were_read_are_known_as_the_database_holds_them(cache, known, read):
    (consent,) = cache.get_known(known)

    assert consent.data_types == ("survey",)
    assert cache.get_known(known) == read(known)


def test_that_an_individual_has_no_consent_is_known_too(cache, read):
    individual = uuid.uuid4().hex
    assert read(individual) == ()

    assert cache.get_known(individual) == ()


def test_without_a_fresh_listener_nothing_is_known(cache, known, listener):
    listener._fresh_until = 0.0

    assert cache.get_known(known) is None


def test_a_change_of_one_individual_removes_that_one_alone(cache, known, listener, read, grant):
    other = grant("emr")
    read(other)
    listener._tell(f"consent:{known}")

    assert cache.get_known(known) is None
    assert cache.get_known(other) is not None


@pytest.mark.parametrize("notice", ["consent:*", ChangeListener.RESET])
def test_a_change_of_many_or_a_new_connection_removes_all(cache, known, listener, notice):
    listener._tell(notice)

    assert cache.get_known(known) is None


def test_a_change_of_something_else_removes_nothing(cache, known, listener):
    listener._tell("revocation:*")
    listener._tell(f"revocation:{known}")

    assert cache.get_known(known) is not None


@pytest.mark.parametrize(
    ("notice", "kept"),
    [("consent:{}", False), ("consent:*", False), ("reset", False), ("revocation:*", True)],
)
def test_what_changed_during_its_query_is_not_kept(
    cache, known, listener, engine, read, notice, kept
):
    listener._tell(f"consent:{known}")
    assert cache.get_known(known) is None
    tell = lambda *_query: listener._tell(notice.format(known))  # noqa: E731
    event.listen(engine, "after_cursor_execute", tell)
    assert len(read(known)) == 1
    event.remove(engine, "after_cursor_execute", tell)

    assert (cache.get_known(known) is not None) is kept


def test_while_nothing_is_heard_the_clock_is_measured_at_every_reading(
    cache, listener, read, grant
):
    individual = grant()
    listener.clock._monotonic_zero += timedelta(days=1)
    read(individual)
    assert cache.now() - datetime.now(UTC) > timedelta(hours=23)
    listener._fresh_until = 0.0
    read(individual)

    assert cache.now() - datetime.now(UTC) < timedelta(hours=1)
