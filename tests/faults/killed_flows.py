"""A flow in a process of its own, which is killed in the middle of its work."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prefect.settings import PREFECT_API_URL

PROJECT = Path(__file__).parents[2]
PATIENCE_SECONDS = 300


class TooLateError(AssertionError):
    """The flow ended before the moment at which it was to be killed."""


@dataclass(frozen=True)
class FlowProcess:
    """A running flow; `log` is what it has said."""

    process: subprocess.Popen[bytes]
    log: Path

    def kill_when(self, reached: Callable[[], bool]) -> None:
        """Kill the process, as nothing can be kept from, once it is in the middle of its work."""
        self.wait_until(reached)
        os.kill(self.process.pid, signal.SIGKILL)
        assert self.process.wait(PATIENCE_SECONDS) == -signal.SIGKILL, self.log.read_text()

    def wait_until(self, reached: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while not reached():
            if self.process.poll() is not None or time.monotonic() > until:
                raise TooLateError(f"it never came to the middle:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.01)

    def finish(self) -> None:
        """Wait for the end, which must be a good one."""
        assert self.process.wait(PATIENCE_SECONDS) == 0, self.log.read_text()[-3000:]

    def fail(self) -> None:
        """Wait for the end, which must be a failure."""
        assert self.process.wait(PATIENCE_SECONDS) > 0, self.log.read_text()[-3000:]


@contextmanager
def start_flow(call: str, variables: dict[str, str], log: Path) -> Iterator[FlowProcess]:
    """Start `module:function(arguments)` as a worker would, in its own process."""
    module, _, expression = call.partition(":")
    function = expression.partition("(")[0]
    code = f"from {module} import {function}\n{expression}"
    environment = {
        **os.environ,
        **variables,
        "PYTHONPATH": str(PROJECT),
        "PREFECT_API_URL": PREFECT_API_URL.value(),
    }
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code],
            cwd=PROJECT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield FlowProcess(process, log)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
