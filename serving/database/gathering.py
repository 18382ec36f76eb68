"""Reads that requests share: while some are under way, later requests gather for the next.

Four individuals in one query cost the database a quarter of four queries, and one thread wakes
instead of four. A read begins after all who share it have asked, so none gets an older state.
"""

import asyncio
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

#: Threads that may wait for the database; one that hangs cannot use up every thread.
CONCURRENT_READS = 32
#: Reads under way beyond which requests gather.
READS_UNDER_WAY = 2
#: Requests that may share one read.
MAX_TOGETHER = 32

Kind = TypeVar("Kind", bound=Hashable)
Found = TypeVar("Found")


@dataclass(frozen=True)
class _Waiting(Generic[Kind, Found]):
    kind: Kind
    individuals: Sequence[str]
    done: "asyncio.Future[Mapping[str, Found]]"


class GatheredReads(Generic[Kind, Found]):
    """Calls `read(kind, individuals)` in threads of its own, so that a read can be given up.

    Belongs to one event loop. Only requests of the same kind share a read, and a read that was
    given up makes room for the next one.
    """

    def __init__(
        self,
        name: str,
        read: Callable[[Kind, Sequence[str]], Mapping[str, Found]],
        deadline_seconds: float,
    ) -> None:
        self._read_now = read
        self._deadline_seconds = deadline_seconds
        self._pool = ThreadPoolExecutor(CONCURRENT_READS, thread_name_prefix=name)
        self._gathered: list[_Waiting[Kind, Found]] = []
        self._reads: set[asyncio.Task[None]] = set()

    async def fetch(self, kind: Kind, individuals: Sequence[str]) -> dict[str, Found]:
        """Return what is found of each individual.

        Raises TimeoutError when the deadline passes first, and what the read raises.
        """
        done = asyncio.get_running_loop().create_future()
        self._gathered.append(_Waiting(kind, individuals, done))
        self._read_on()
        async with asyncio.timeout(self._deadline_seconds):
            found: Mapping[str, Found] = await done
        # Others shared the read; their rows are none of this caller's business.
        return {individual: found[individual] for individual in individuals}

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _read_on(self) -> None:
        while self._gathered and len(self._reads) < READS_UNDER_WAY:
            read = asyncio.create_task(self._read(self._take_together()))
            self._reads.add(read)
            read.add_done_callback(self._finish)

    def _finish(self, read: "asyncio.Task[None]") -> None:
        self._reads.discard(read)
        self._read_on()

    def _take_together(self) -> list[_Waiting[Kind, Found]]:
        """Take those who wait longest for the same kind; who gave up waits no more."""
        waiting = [waiter for waiter in self._gathered if not waiter.done.done()]
        alike = [waiter for waiter in waiting if waiter.kind == waiting[0].kind][:MAX_TOGETHER]
        taken = set(map(id, alike))
        self._gathered = [waiter for waiter in waiting if id(waiter) not in taken]
        return alike

    async def _read(self, together: list[_Waiting[Kind, Found]]) -> None:
        if not together:
            return
        individuals = [individual for waiting in together for individual in waiting.individuals]
        future = self._pool.submit(self._read_now, together[0].kind, individuals)
        try:
            async with asyncio.timeout(self._deadline_seconds):
                found = await asyncio.wrap_future(future)
        except Exception as error:  # whatever it is, it is raised in each of them
            _answer(together, error)
        else:
            _answer(together, found)


def _answer(together: list[_Waiting[Kind, Found]], result: Mapping[str, Found] | Exception) -> None:
    for waiting in together:
        if waiting.done.done():
            continue
        if isinstance(result, Exception):
            waiting.done.set_exception(result)
        else:
            waiting.done.set_result(result)
