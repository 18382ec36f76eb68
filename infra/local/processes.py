"""Child processes of the local stack: started with a log file, watched, stopped, cleaned up."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

STOP_PATIENCE_SECONDS = 5.0
LOG_TAIL_LINES = 15


class ServiceFailedError(RuntimeError):
    """A service ended or never answered; the message holds the end of its log."""


#: Files of services (lake, artifacts, logs) hold pseudonymised health data: their owner's alone.
OWNER_ONLY = 0o077


@dataclass(frozen=True)
class ManagedProcess:
    """A running service of the stack."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    record: Path
    begun: float = field(default_factory=time.monotonic)

    def stop(self) -> None:
        """Ask the process group to end, then make it."""
        _end_group(self.process.pid)
        self.process.wait()
        self.record.unlink(missing_ok=True)

    def check_alive(self) -> None:
        """Raise ServiceFailedError with the end of its log if the process has ended."""
        if (code := self.process.poll()) is not None:
            raise ServiceFailedError(f"{self.name} ended with code {code}:\n{self.read_log_end()}")

    def read_log_end(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(["  " + line for line in lines[-LOG_TAIL_LINES:]] + [f"  ({self.log})"])


def start_process(
    name: str, command: Sequence[str], environment: Mapping[str, str], state: Path
) -> ManagedProcess:
    """Start a command in its own process group, its output in `state`/logs/NAME.log."""
    log = state / "logs" / f"{name}.log"
    record = state / "run" / f"{name}.json"
    for folder in (log.parent, record.parent):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    log.touch(mode=0o600)
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches only the parent, which stops in order
            umask=OWNER_ONLY,
        )
    started = psutil.Process(process.pid).create_time()
    record.write_text(json.dumps({"pid": process.pid, "started": started}))
    return ManagedProcess(name, process, log, record)


def wait_until_healthy(service: ManagedProcess, url: str, timeout: float = 180) -> float:
    """Wait until `url` returns 200; return the seconds since the process started.

    Raises ServiceFailedError if the process ends or the time is up.
    """
    while time.monotonic() - service.begun < timeout:
        service.check_alive()
        if answers(url):
            return time.monotonic() - service.begun
        time.sleep(0.25)
    raise ServiceFailedError(
        f"{service.name} did not answer at {url} within {timeout:.0f} s:\n{service.read_log_end()}"
    )


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=3, trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def clean_up_after_crash(state: Path) -> list[str]:
    """Stop services that a killed parent left running; return their names."""
    stopped = []
    for record in sorted((state / "run").glob("*.json")):
        noted = json.loads(record.read_text())
        if _is_same_process(noted["pid"], noted["started"]):
            _end_group(noted["pid"])
            stopped.append(record.stem)
        record.unlink()
    return stopped


def _is_same_process(pid: int, started: float) -> bool:
    """Whether `pid` is still the process that was noted and not a later one."""
    try:
        return abs(psutil.Process(pid).create_time() - started) < 1
    except psutil.NoSuchProcess:
        return False


def _end_group(pid: int) -> None:
    members = _list_members(pid)
    _signal(members, signal.SIGTERM)
    _, stubborn = psutil.wait_procs(members, timeout=STOP_PATIENCE_SECONDS)
    _signal(stubborn, signal.SIGKILL)
    psutil.wait_procs(stubborn, timeout=STOP_PATIENCE_SECONDS)


def _list_members(pid: int) -> list[psutil.Process]:
    members = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == pid:
                members.append(process)
        except ProcessLookupError:
            continue  # it ended while we looked
    return members


def _signal(processes: list[psutil.Process], number: int) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue  # it ended by itself
