"""A listener whose connection falls silent must know that it knows nothing any more."""

import select
import socket
import threading
import time

import pytest
from sqlalchemy import create_engine, make_url, text

from serving.database.changes import CHANNEL, ChangeListener

PATIENCE_SECONDS = 20


class SilentableProxy:
    """A TCP proxy that can stop passing anything on, without closing: a network that is cut."""

    def __init__(self, host, port):
        self._target = (host, port)
        self.is_silent = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            upstream = socket.create_connection(self._target)
            threading.Thread(target=self._pump, args=(client, upstream), daemon=True).start()

    def _pump(self, client, upstream):
        other = {client: upstream, upstream: client}
        with client, upstream:
            while True:
                for ready in select.select(list(other), [], [], 1)[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    if not self.is_silent.is_set():
                        other[ready].sendall(data)

    def close(self):
        self._server.close()


@pytest.fixture
def proxy(database_url):
    url = make_url(database_url)
    proxy = SilentableProxy(url.host, url.port)
    yield proxy
    proxy.close()


@pytest.fixture
def listener(database_url, proxy):
    listener = ChangeListener(make_url(database_url).set(port=proxy.port))
    yield listener
    listener.stop()


def wait_for(condition):
    until = time.monotonic() + PATIENCE_SECONDS
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    assert condition()


def notify(database_url, word):
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_notify(:c, :w)"), {"c": CHANNEL, "w": word})
    engine.dispose()


def test_before_it_listens_nothing_counts(listener):
    assert not listener.is_fresh


def test_a_notice_reaches_every_receiver_and_a_connection_begins_with_a_reset(
    listener, database_url
):
    heard, also_heard = [], []
    listener.subscribe(heard.append)
    listener.subscribe(also_heard.append)
    listener.start()
    wait_for(lambda: listener.is_fresh)
    notify(database_url, "consent:x")
    wait_for(lambda: "consent:x" in also_heard)

    assert heard[0] == ChangeListener.RESET
    assert "consent:x" in heard


def test_a_silent_connection_ends_the_lease_within_a_second(listener, proxy):
    listener.start()
    wait_for(lambda: listener.is_fresh)
    proxy.is_silent.set()
    time.sleep(1)

    assert not listener.is_fresh


def test_without_a_database_nothing_counts_and_the_end_is_orderly():
    listener = ChangeListener(make_url("postgresql+psycopg2://u:p@127.0.0.1:1/x"))
    listener.start()
    time.sleep(0.1)

    assert not listener.is_fresh
    listener.stop()
