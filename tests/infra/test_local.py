"""The local stack's own pieces: secrets, ports, processes."""

import os
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from infra.local.__main__ import DROPPED, SIMULATED, keep_apart
from infra.local.ehr_client import make_demo_token, register_demo_client
from infra.local.ports import choose_port
from infra.local.processes import (
    ServiceFailedError,
    clean_up_after_crash,
    start_process,
    wait_until_healthy,
)
from infra.local.secrets import load_or_make_secrets, read_env_file, write_env_file
from infra.local.tour import run_with_more_people
from serving.fhir.client_tokens import ClientVerifier
from serving.fhir.clients import load_clients

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_secrets_are_made_once_and_only_their_owner_may_read_them(tmp_path: Path) -> None:
    first = load_or_make_secrets(tmp_path)

    assert load_or_make_secrets(tmp_path) == first
    assert all(len(secret) >= 32 for secret in first.values())
    assert stat.S_IMODE((tmp_path / "secrets.env").stat().st_mode) == 0o600


def test_a_file_others_could_read_is_closed_when_it_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.touch(mode=0o644)

    write_env_file(path, {"A": "b=c"})

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_env_file(path) == {"A": "b=c"}


def test_a_shell_reads_the_same_variables(tmp_path: Path) -> None:
    write_env_file(tmp_path / "env", {"URL": "postgresql://a:b%3D@127.0.0.1/x?y=1&z=2"})

    script = f'set -a; . {tmp_path / "env"}; printf %s "$URL"'
    told = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)

    assert told.stdout == "postgresql://a:b%3D@127.0.0.1/x?y=1&z=2"


@pytest.mark.parametrize(
    ("drop", "promoted", "people"),
    [
        (None, [True], [3000]),
        (None, [False, True], [3000, 6000]),
        (None, [False, False], [3000, 6000]),
        ("folder", [False], [3000]),
    ],
    ids=["promoted", "refused once", "refused twice", "refused drop"],
)
def test_simulated_people_are_doubled_once_if_the_gates_refuse_their_release(
    drop: str | None, promoted: list[bool], people: list[int]
) -> None:
    runs: list[dict[str, object]] = []

    def run(parameters: dict[str, object]) -> bool:
        runs.append(parameters)
        return promoted[len(runs) - 1]

    run_with_more_people(
        run, {"drop": drop, "people": 3000, "members": ("a",)}, Console(quiet=True)
    )

    assert [one["people"] for one in runs] == people
    assert all((one["drop"], one["members"]) == (drop, ("a",)) for one in runs)


@pytest.mark.parametrize(
    ("held", "coming"), [(SIMULATED, DROPPED), (DROPPED, SIMULATED)], ids=["simulated", "real"]
)
def test_a_state_holds_simulated_people_or_those_of_a_drop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], held: str, coming: str
) -> None:
    state = tmp_path / "state"
    for _ in range(2):
        keep_apart(state, held, coming)

    with pytest.raises(SystemExit) as ended:
        keep_apart(state, coming, held)
    assert ended.value.code == 1
    assert "must not be mixed" in " ".join(capsys.readouterr().out.split())


def test_a_taken_port_is_passed_over() -> None:
    usual = choose_port(21000)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", usual))

        assert choose_port(usual) > usual


def test_a_service_that_ends_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('no such table'); raise SystemExit(3)"]
    service = start_process("broken", command, os.environ, tmp_path)

    with pytest.raises(ServiceFailedError, match=r"(?s)code 3.*no such table"):
        wait_until_healthy(service, "http://127.0.0.1:9/health", timeout=20)


def test_what_a_service_writes_only_its_owner_may_read(tmp_path: Path) -> None:
    written = tmp_path / "lake"
    script = f"mkdir {written} && touch {written}/rows && sleep 60"
    service = start_process("writer", ["sh", "-c", script], os.environ, tmp_path)
    try:
        wait_for(written / "rows")
        paths = (written, written / "rows", service.log)
        assert [path.stat().st_mode & 0o077 for path in paths] == [0, 0, 0]
    finally:
        service.stop()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.05)


def test_stopping_ends_the_children_of_a_service_too(tmp_path: Path) -> None:
    code = f"import subprocess, sys; subprocess.run({SLEEP!r})"
    service = start_process("parent", [sys.executable, "-c", code], os.environ, tmp_path)
    while not (children := psutil.Process(service.process.pid).children()):
        time.sleep(0.05)

    service.stop()

    assert not any(psutil.pid_exists(child.pid) and child.is_running() for child in children)
    assert not service.record.exists()


def test_a_service_that_ignores_the_request_to_end_is_ended(tmp_path: Path) -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print('deaf', flush=True); time.sleep(60)"
    )
    service = start_process("deaf", [sys.executable, "-c", code], os.environ, tmp_path)
    while "deaf" not in service.log.read_text():
        time.sleep(0.05)

    service.stop()

    assert not psutil.pid_exists(service.process.pid)


def test_what_a_crash_left_running_is_stopped_and_a_reused_pid_is_spared(tmp_path: Path) -> None:
    left = start_process("left", SLEEP, os.environ, tmp_path)
    bystander = subprocess.Popen(SLEEP)
    (tmp_path / "run" / "gone.json").write_text(f'{{"pid": {bystander.pid}, "started": 1.0}}')

    try:
        assert clean_up_after_crash(tmp_path) == ["left"]
        assert not psutil.pid_exists(left.process.pid)
        assert bystander.poll() is None
        assert list((tmp_path / "run").iterdir()) == []
    finally:
        left.process.wait()
        bystander.kill()
        bystander.wait()


def test_the_demo_client_of_a_stack_is_one_that_the_api_accepts(tmp_path: Path) -> None:
    clients = load_clients(str(register_demo_client(tmp_path)))
    url = "http://127.0.0.1:8000/fhir/RiskAssessment"
    verified = ClientVerifier(clients).verify(make_demo_token(tmp_path, f"{url}?patient=17"), url)

    assert verified.client.name_person("17") == "demo|17"
    assert stat.S_IMODE((tmp_path / "ehr-demo.key").stat().st_mode) == 0o600
    assert "BEGIN" not in (tmp_path / "ehr-clients.json").read_text()


def test_the_demo_client_keeps_its_key_at_the_next_start(tmp_path: Path) -> None:
    first = register_demo_client(tmp_path).read_text()

    assert register_demo_client(tmp_path).read_text() == first
