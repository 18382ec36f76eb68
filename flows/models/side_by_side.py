"""A member fitted to several parts of the rows, two parts at a time.

Most families fit on one thread and leave Python's lock, so threads will do. A network's fit seeds
torch's random generator, which is one for the whole process: the second one has its own process.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from queue import SimpleQueue
from typing import Any, Protocol

from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from flows.models.member import DividedFit, FitMember, FittedMember, FittingData

#: Fits of one thread each that run side by side.
FITS_AT_ONCE = 2

#: Takes a fit, its data, and whether the member's graph is exported; returns what was learnt.
LearnPart = Callable[[DividedFit, FittingData, bool], Any]


class FitEach(Protocol):
    """How a family is fitted to several parts of the rows."""

    def __call__(
        self, fit: FitMember, data: FittingData, parts: Iterable[NDArray[Any]], exported: int = 0, /
    ) -> list[FittedMember]:
        """Return the members in the order of the parts.

        The graphs of the first `exported` are exported beside the fits, if that takes seconds.
        """


@contextmanager
def open_pool() -> Iterator[ThreadPoolExecutor]:
    """Open a pool for FITS_AT_ONCE fits, each with one thread of BLAS.

    The limit is one of the process. Fits that set and restore it side by side would lift each
    other's, and sums of more threads differ in their last digits.
    """
    with threadpool_limits(1), ThreadPoolExecutor(FITS_AT_ONCE) as pool:
        yield pool


def open_other_process() -> Executor:
    """Open one more process for fits; it starts with the first and ends with its `with` block."""
    return ProcessPoolExecutor(1, get_context("spawn"))


def fit_in_threads(
    fit: FitMember, data: FittingData, parts: Iterable[NDArray[Any]], _exported: int = 0, /
) -> list[FittedMember]:
    """Fit to each part of the rows, by a fit that neither reads nor sets state of the process."""
    with open_pool() as pool:
        return list(pool.map(lambda part: fit(data.select(part)), parts))


def fit_in_processes(
    other: Executor,
    fit: FitMember,
    data: FittingData,
    parts: Iterable[NDArray[Any]],
    exported: int = 0,
    /,
) -> list[FittedMember]:
    """Fit to each part of the rows, in this process and in the other, one fit at a time in each.

    `fit` is a DividedFit.
    """
    assert isinstance(fit, DividedFit)
    chosen = list(parts)
    places: SimpleQueue[LearnPart] = SimpleQueue()
    places.put(learn_part)
    places.put(lambda *given: other.submit(learn_part, *given).result())

    def learn_in_turn(part: int) -> Any:
        place = places.get()
        try:
            return place(fit, data.select(chosen[part]), part < exported)
        finally:
            places.put(place)

    with open_pool() as pool:
        learnt = list(pool.map(learn_in_turn, range(len(chosen))))
    # After all of them: a new network draws from the generator that a fit has seeded.
    return [fit.assemble(data.select(part), one) for part, one in zip(chosen, learnt, strict=True)]


def learn_part(fit: DividedFit, data: FittingData, exported: bool) -> Any:
    """Return what a fit learns from a part of the rows, with the graph if it is exported."""
    learnt = fit.learn(data)
    return fit.export(data, learnt) if exported else learnt
