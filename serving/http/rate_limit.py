"""How often one caller may ask: both limits of the deployment guide, in any sliding window.

All workers of a pod share one table in memory, so that a caller has one allowance however the
kernel spreads its connections. Pods count apart; the ingress limits by address before them.
Decision: infra/adr/0008-rate-limit-in-shared-memory.md.
"""

import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np

from monitoring.metrics import RATE_LIMITED_REQUESTS
from serving.errors import RateLimitedError

#: Names the file that the workers of a pod share; without it each worker counts alone.
SHARED_FILE = "MHRAS_RATE_LIMIT_FILE"
#: Callers whose requests are counted; beyond them the longest silent one is dropped.
SLOTS = 4096
#: Slots read for one caller before another is dropped.
PROBES = 8
MINUTE = 60.0
SECOND = 1.0
#: The guide's limit-burst-multiplier: requests that may come at once, by those per second.
BURST = 2


@dataclass(frozen=True)
class Allowance:
    """Requests of one caller in any 60 seconds, and in any one second."""

    per_minute: int = 100
    per_second: int = 10 * BURST


class RateLimiter:
    """A table of each caller's last requests, shared by the processes that map the same file."""

    def __init__(self, allowance: Allowance, path: str | None = None) -> None:
        self._allowance = allowance
        # A ring of the last requests: as many as the minute allows suffice.
        kind = np.dtype(
            [("caller", "S16"), ("next", "u4"), ("times", "f8", (allowance.per_minute,))]
        )
        # Held open for as long as the limiter lives: the lock is the file's.
        self._file = Path(path).open("r+b") if path else TemporaryFile()  # noqa: SIM115
        if self._file.seek(0, os.SEEK_END) < SLOTS * kind.itemsize:
            self._file.truncate(SLOTS * kind.itemsize)
        # Plain arrays over the same memory: each access to a memmap makes a new object.
        slots = np.asarray(np.memmap(self._file, kind, "r+", shape=(SLOTS,)))
        self._callers, self._next, self._times = slots["caller"], slots["next"], slots["times"]
        self._lock = threading.Lock()

    def admit(self, user_id: str) -> None:
        """Count a request of a caller, or raise RateLimitedError saying when there is room."""
        # CLOCK_MONOTONIC is one clock for all processes of a machine.
        now = time.monotonic()
        with self._hold():
            wait = self._find_wait(self._find_slot(user_id), now)
        if wait > 0:
            RATE_LIMITED_REQUESTS.inc()
            raise RateLimitedError(wait)

    def close(self) -> None:
        self._file.close()

    def _find_wait(self, slot: int, now: float) -> float:
        """Return the seconds until there is room; take the room when it is now."""
        times, position = self._times[slot], int(self._next[slot])
        size = len(times)
        minute = times[position % size] + MINUTE - now
        second = times[(position - self._allowance.per_second) % size] + SECOND - now
        if (wait := max(minute, second)) > 0:
            return float(wait)
        times[position % size] = now
        self._next[slot] = (position + 1) % size
        return 0.0

    def _find_slot(self, user_id: str) -> int:
        caller = hashlib.sha256(user_id.encode()).hexdigest()[:16].encode()
        start = int(caller[:8], 16)
        numbers = [(start + step) % SLOTS for step in range(PROBES)]
        for number in numbers:
            held = self._callers[number]
            if held == caller:
                return number
            if not held:
                return self._take_over(number, caller)
        silent = min(numbers, key=lambda number: self._times[number].max())
        return self._take_over(silent, caller)

    def _take_over(self, slot: int, caller: bytes) -> int:
        self._callers[slot], self._next[slot] = caller, 0
        self._times[slot] = -np.inf
        return slot

    @contextmanager
    def _hold(self) -> Iterator[None]:
        with self._lock:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)


def open_rate_limiter(allowance: Allowance) -> RateLimiter:
    """Return the limiter of this pod."""
    return RateLimiter(allowance, os.environ.get(SHARED_FILE))
