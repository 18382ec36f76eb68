"""How many screenings a worker takes on at once, and who is never turned away."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from monitoring.metrics import SHED_SCREENINGS
from serving.errors import OverloadedError


class LoadLimit:
    """Counts the running screenings; beyond `most` only urgent ones are admitted.

    A late answer is useless; after an immediate refusal the caller can try another worker.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self.under_way = 0

    @contextmanager
    def admit(self, *, urgent: bool) -> Iterator[None]:
        """Count one screening in, or raise OverloadedError; an urgent one always gets in."""
        with self._lock:
            if self.under_way >= self._most and not urgent:
                SHED_SCREENINGS.inc()
                raise OverloadedError("too many screenings are running; send it again shortly")
            self.under_way += 1
        try:
            yield
        finally:
            with self._lock:
                self.under_way -= 1
