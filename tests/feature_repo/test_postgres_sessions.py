"""Sessions begin as they were told to; each plans a prepared statement once."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import DBAPIError

from feature_repo.postgres_sessions import PreparedStatement, begin_sessions_with

ADD = PreparedStatement("SELECT $1 + $2", ("bigint", "bigint"))
JOIN = PreparedStatement("SELECT $1 || $2", ("text", "text"))


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = create_engine(database_url, pool_size=1, max_overflow=0, isolation_level="AUTOCOMMIT")
    yield engine
    engine.dispose()


def list_prepared(connection) -> list[str]:
    return list(connection.exec_driver_sql("SELECT name FROM pg_prepared_statements").scalars())


def test_an_argument_of_another_type_is_refused(engine):
    with engine.connect() as connection, pytest.raises(DBAPIError, match="bigint"):
        ADD.execute(connection, "one", 2)


def test_a_statement_that_fails_to_be_prepared_is_prepared_the_next_time(engine):
    missing = PreparedStatement("SELECT $1 FROM prepared_later", ("bigint",))
    with engine.connect() as connection:
        with pytest.raises(DBAPIError, match="prepared_later"):
            missing.execute(connection, 1)
        connection.exec_driver_sql("CREATE TEMPORARY TABLE prepared_later AS SELECT 1")
        assert missing.execute(connection, 5) == [(5,)]


@pytest.mark.parametrize("isolation", ["AUTOCOMMIT", "READ COMMITTED"])
def test_every_session_begins_with_the_settings_and_keeps_them(database_url, isolation):
    engine = create_engine(database_url, pool_size=1, max_overflow=0, isolation_level=isolation)
    begin_sessions_with(engine, {"statement_timeout": 100, "enable_seqscan": "off"})
    for _ in range(2):
        with engine.connect() as connection:
            for name, value in (("statement_timeout", "100ms"), ("enable_seqscan", "off")):
                assert connection.exec_driver_sql(f"SHOW {name}").scalar() == value
            with pytest.raises(DBAPIError, match="statement timeout"):
                connection.exec_driver_sql("SELECT pg_sleep(5)")
            connection.invalidate()
    engine.dispose()


def test_each_statement_is_prepared_once_for_a_connection(engine):
    for number in range(3):
        with engine.connect() as connection:
            assert ADD.execute(connection, number, 1) == [(number + 1,)]
            assert JOIN.execute(connection, "it's ", "100 %s") == [("it's 100 %s",)]

    with engine.connect() as connection:
        assert sorted(list_prepared(connection)) == sorted([ADD.name, JOIN.name])


def test_a_new_connection_is_told_again(engine):
    with engine.connect() as connection:
        ADD.execute(connection, 1, 1)
        connection.invalidate()
    with engine.connect() as connection:
        assert list_prepared(connection) == []
        assert ADD.execute(connection, 2, 2) == [(4,)]
