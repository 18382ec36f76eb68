"""What a connection to the running server may not do: raw bytes, no client library between."""

import socket
import subprocess
import sys
import uuid

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from infra.local.ports import choose_port
from serving.database.tables import AuditRow
from serving.roles import Role
from tests.fixtures.api import make_headers
from tests.fixtures.server_process import make_environment, wait_until_alive

FORGED = "203.0.113.9"
#: Two lengths of one body: what follows could pass for a request of its own.
AMBIGUOUS = {
    "length and chunks": b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
    "a signed length": b"Content-Length: +4\r\n\r\nabcd",
    "an unknown coding": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a space before the colon": b"Content-Length : 4\r\n\r\nabcd",
}
#: What an attacker would hide behind the ambiguous body.
HIDDEN = b"GET /health HTTP/1.1\r\nHost: testserver\r\n\r\n"


@pytest.fixture(scope="module")
def port(database_url, mlflow_url, production_version):
    port = choose_port(18600)
    server = subprocess.Popen(
        [sys.executable, "-m", "serving", "--port", str(port), "--workers", "1"],
        env=make_environment(database_url, mlflow_url),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )
    wait_until_alive(server, f"http://127.0.0.1:{port}")
    yield port
    server.terminate()
    server.wait(40)


@pytest.mark.parametrize("body", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_a_request_of_ambiguous_length_is_refused_and_nothing_after_it_is_read(port, body):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"POST /screen HTTP/1.1\r\nHost: testserver\r\n" + body + HIDDEN)
        received = read_to_the_end(connection)

    assert received.startswith(b"HTTP/1.1 400")
    assert received.count(b"HTTP/1.1") == 1


def read_to_the_end(connection: socket.socket) -> bytes:
    received = b""
    while part := connection.recv(65_536):
        received += part
    return received


@pytest.mark.parametrize("header", ["X-Forwarded-For", "X-Real-IP", "Forwarded"])
def test_a_caller_cannot_forge_the_address_in_the_audit_trail(port, engine, header):
    user = f"forger.{uuid.uuid4().hex[:8]}"
    value = f"for={FORGED}" if header == "Forwarded" else FORGED
    sent = make_headers(Role.AUDITOR, user) | {header: value}
    httpx.get(f"http://127.0.0.1:{port}/audit", headers=sent, trust_env=False).raise_for_status()

    with Session(engine) as session:
        query = select(AuditRow.network).where(AuditRow.user_id == user)
        assert set(session.scalars(query)) == {"127.0.0.1"}
