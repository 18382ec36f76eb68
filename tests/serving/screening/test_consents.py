"""Consents of people screened at the same time, read from a real database."""

import asyncio
import uuid

import pytest
from sqlalchemy import event, text

from serving.database.gathering import READS_UNDER_WAY
from serving.errors import DeadlineExceededError
from serving.screening.consents import ConsentGateway
from tests.fixtures.consent_cache import cache, listener

__all__ = ["cache", "listener"]


@pytest.fixture
def read(cache, engine):
    def read_together(individuals, deadline=5.0):
        async def ask():
            gateway = ConsentGateway(cache, engine, deadline)
            try:
                return await asyncio.gather(*map(gateway.read, individuals))
            finally:
                gateway.close()

        return asyncio.run(ask())

    return read_together


def test_a_table_that_is_locked_ends_the_wait_as_a_screening_out_of_time(read, engine):
    with engine.begin() as connection:
        connection.execute(text("LOCK TABLE consent"))
        with pytest.raises(DeadlineExceededError):
            read([uuid.uuid4().hex], deadline=0.1)


def test_a_database_that_refuses_fails_all_who_shared_the_read(read, engine):
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE consent RENAME TO consent_away"))
    try:
        with pytest.raises(Exception, match="consent"):
            read([uuid.uuid4().hex for _ in range(5)])
    finally:
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE consent_away RENAME TO consent"))


def test_people_read_meanwhile_share_queries_and_each_gets_their_own(read, cache, engine, grant):
    people = [grant(kind) for kind in ("survey", "emr", "wearable")] + [uuid.uuid4().hex]
    people += [grant("survey") for _ in range(8)]
    queries = []
    count = lambda _connection, _cursor, sql, *_rest: queries.append(sql)  # noqa: E731
    event.listen(engine, "before_cursor_execute", count)
    try:
        found = read(people)
    finally:
        event.remove(engine, "before_cursor_execute", count)

    kinds = [[consent.data_types for consent in consents] for consents in found]
    assert kinds == [[("survey",)], [("emr",)], [("wearable",)], [], *[[("survey",)]] * 8]
    assert sum(sql.startswith("EXECUTE") for sql in queries) == READS_UNDER_WAY + 1
    assert [cache.get_known(one) for one in people] == found
