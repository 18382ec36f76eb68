"""A stop needs no privilege: pods of the API have none."""

import errno
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import nullcontext

import pytest

from infra.local.ports import choose_port
from serving.http.listening import MOST_HOPS, bind, set_least_hops
from tests.fixtures.server_process import make_environment, wait_until_alive

#: The same user without a single capability, as in the deployment.
UNPRIVILEGED = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")


@pytest.fixture(params=["127.0.0.1", "::1"])
def listening(request):
    listening = bind(request.param, 0)
    listening.settimeout(5)
    yield listening
    listening.close()


def connect(listening: socket.socket, seconds: float = 5) -> socket.socket:
    return socket.create_connection(listening.getsockname()[:2], timeout=seconds)


def test_while_a_server_stops_no_connection_begins(listening):
    set_least_hops(listening, MOST_HOPS)

    with pytest.raises(TimeoutError):
        connect(listening, 0.3)


def test_connections_from_before_go_on_and_so_do_those_that_begin_when_the_limit_is_lifted(
    listening,
):
    with connect(listening) as early, listening.accept()[0] as taken:
        set_least_hops(listening, MOST_HOPS)
        early.sendall(b"asked")
        assert taken.recv(5) == b"asked"
    set_least_hops(listening, 0)

    with connect(listening) as late, listening.accept()[0] as taken:
        late.sendall(b"asked")
        assert taken.recv(5) == b"asked"


@pytest.mark.parametrize(
    ("number", "is_passed_on"), [(errno.ENOPROTOOPT, False), (errno.EPERM, True)]
)
def test_a_system_without_the_option_is_left_alone_and_a_refusal_is_not_hidden(
    number, is_passed_on
):
    class WithoutTheOption(socket.socket):
        def setsockopt(self, *_option):
            raise OSError(number, "set by a test")

    with WithoutTheOption() as tcp_socket:
        expected = pytest.raises(OSError, match="set by a test") if is_passed_on else nullcontext()
        with expected:
            set_least_hops(tcp_socket, MOST_HOPS)


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs util-linux' setpriv")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_without_any_privilege_stops_with_success(database_url, mlflow_url, workers):
    port = choose_port(18700)
    command = [sys.executable, "-m", "serving", "--port", str(port), "--workers", workers]
    server = subprocess.Popen(
        [*UNPRIVILEGED, *command],
        env=make_environment(database_url, mlflow_url),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )
    wait_until_alive(server, f"http://127.0.0.1:{port}")
    server.send_signal(signal.SIGTERM)

    # Uvicorn raises the signal again once it has stopped; as process 1 that has no effect.
    assert server.wait(40) in (0, -signal.SIGTERM)
