"""Stored features of individuals, within a deadline, from a reader that can be replaced."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog

from feature_repo.online_store import FeatureStoreUnavailableError, OnlineReader
from feature_repo.stored_views import StoredRow, StoredView

log = structlog.get_logger("serving.features")

#: Threads that may wait for the store; a hanging store cannot use up every thread.
CONCURRENT_READS = 32
#: While so many reads are under way, whoever comes gathers for the next: four individuals in
#: one query cost the store a quarter of four queries.
READS_UNDER_WAY = 2
#: Screenings that may share one read.
MAX_TOGETHER = 32

Stored = dict[str, StoredRow]


@dataclass(frozen=True)
class _Waiting:
    views: tuple[StoredView, ...]
    individuals: Sequence[str]
    done: "asyncio.Future[Stored]"


class FeatureGateway:
    """Reads stored rows in its own threads, so that a read can be given up.

    Belongs to one event loop. A read that was given up makes room for the next one.
    """

    def __init__(self, reader: OnlineReader, deadline_seconds: float) -> None:
        self._reader = reader
        self._deadline_seconds = deadline_seconds
        self._pool = ThreadPoolExecutor(CONCURRENT_READS, thread_name_prefix="features")
        self._gathered: list[_Waiting] = []
        self._reads: set[asyncio.Task[None]] = set()
        #: Whether the last read got no answer.
        self.is_away = False

    async def fetch(self, views: Sequence[StoredView], individuals: Sequence[str]) -> Stored | None:
        """Return what is stored of each individual, None when the store is unreachable."""
        done = asyncio.get_running_loop().create_future()
        self._gathered.append(_Waiting(tuple(views), individuals, done))
        self._read_on()
        try:
            async with asyncio.timeout(self._deadline_seconds):
                stored: Stored = await done
        except (FeatureStoreUnavailableError, TimeoutError) as error:
            log.warning("feature store unavailable", cause=type(error).__name__)
            self.is_away = True
            return None
        self.is_away = False
        # Others were read in the same breath; their rows are none of this caller's business.
        return {individual: stored[individual] for individual in individuals}

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._reader.close()

    def _read_on(self) -> None:
        while self._gathered and len(self._reads) < READS_UNDER_WAY:
            read = asyncio.create_task(self._read(self._take_together()))
            self._reads.add(read)
            read.add_done_callback(self._finish)

    def _finish(self, read: "asyncio.Task[None]") -> None:
        self._reads.discard(read)
        self._read_on()

    def _take_together(self) -> list[_Waiting]:
        """Take those who wait longest for the same views; who gave up waits no more."""
        waiting = [waiter for waiter in self._gathered if not waiter.done.done()]
        alike = [waiter for waiter in waiting if waiter.views == waiting[0].views][:MAX_TOGETHER]
        taken = set(map(id, alike))
        self._gathered = [waiter for waiter in waiting if id(waiter) not in taken]
        return alike

    async def _read(self, together: list[_Waiting]) -> None:
        if not together:
            return
        individuals = [individual for waiting in together for individual in waiting.individuals]
        future = self._pool.submit(self._reader.fetch, together[0].views, individuals)
        try:
            async with asyncio.timeout(self._deadline_seconds):
                stored = await asyncio.wrap_future(future)
        except Exception as error:  # whatever it is, each of them is to hear of it
            _answer(together, error)
        else:
            _answer(together, stored)


def _answer(together: list[_Waiting], result: Stored | Exception) -> None:
    for waiting in together:
        if waiting.done.done():
            continue
        if isinstance(result, Exception):
            waiting.done.set_exception(result)
        else:
            waiting.done.set_result(result)
