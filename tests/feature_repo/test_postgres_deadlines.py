"""A frozen PostgreSQL is given up by the client; its own deadlines are as frozen as it is."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from feature_repo.postgres_deadlines import REQUEST_DEADLINE, ServerSilentError, bind_limit
from infra.local.postgres import PostgresServer

LONG_SECONDS = 600.0


@contextmanager
def frozen_backend(connection: psycopg2.extensions.connection) -> Iterator[None]:
    backend = connection.info.backend_pid
    os.kill(backend, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(backend, signal.SIGCONT)


def connect(postgres: PostgresServer, limit_seconds: float) -> psycopg2.extensions.connection:
    url = postgres.url("postgres", driver="postgresql")
    return psycopg2.connect(url, connection_factory=bind_limit(limit_seconds))


def test_a_statement_of_a_frozen_server_is_given_up_and_its_connection_closed(postgres) -> None:
    connection = connect(postgres, 0.3)
    with frozen_backend(connection), pytest.raises(ServerSilentError):
        connection.cursor().execute("SELECT 1")

    assert connection.closed


def test_a_commit_to_a_frozen_server_is_given_up(postgres) -> None:
    connection = connect(postgres, 0.3)
    connection.cursor().execute("SELECT 1")
    with frozen_backend(connection), pytest.raises(ServerSilentError):
        connection.commit()


def test_the_deadline_of_a_request_comes_before_the_limit_of_a_connection(postgres) -> None:
    connection = connect(postgres, LONG_SECONDS)
    token = REQUEST_DEADLINE.set(time.monotonic() + 0.3)
    try:
        with frozen_backend(connection), pytest.raises(ServerSilentError):
            connection.cursor().execute("SELECT 1")
    finally:
        REQUEST_DEADLINE.reset(token)


def test_a_connection_to_a_port_that_never_answers_is_given_up(postgres) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://u:p@127.0.0.1:{silent.getsockname()[1]}/d"
        with pytest.raises(ServerSilentError):
            psycopg2.connect(url, connection_factory=bind_limit(0.3))


def test_an_engine_replaces_a_connection_that_was_given_up(postgres) -> None:
    arguments = {"connection_factory": bind_limit(0.5)}
    engine = create_engine(postgres.url("postgres"), connect_args=arguments)
    with engine.connect() as connection:
        raw = connection.connection.driver_connection
        with frozen_backend(raw), pytest.raises(OperationalError) as given_up:
            connection.execute(text("SELECT 1"))
    assert given_up.value.connection_invalidated
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1
    engine.dispose()


def test_a_connection_without_a_limit_waits(postgres) -> None:
    bind_limit(0.1)
    connection = psycopg2.connect(postgres.url("postgres", driver="postgresql"))
    cursor = connection.cursor()
    cursor.execute("SELECT pg_sleep(0.5), 7")
    assert cursor.fetchone()[1] == 7
    connection.close()
