"""A member fitted to several parts of the rows, two parts at a time.

Most families fit on one thread and leave Python's lock, so threads will do. A network's fit seeds
torch's random generator, which is one for the whole process: the second one has its own process.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from queue import SimpleQueue
from typing import Any

from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from flows.models.member import DividedFit, FitMember, FittedMember, FittingData

#: Fits of one thread each that run side by side.
FITS_AT_ONCE = 2

#: Fits to each part of the rows, and returns the members in the order of the parts.
FitEach = Callable[[FitMember, FittingData, Iterable[NDArray[Any]]], list[FittedMember]]


@contextmanager
def open_pool() -> Iterator[ThreadPoolExecutor]:
    """Open a pool for FITS_AT_ONCE fits, each with one thread of BLAS.

    The limit is one of the process. Fits that set and restore it side by side would lift each
    other's, and sums of more threads differ in their last digits.
    """
    with threadpool_limits(1), ThreadPoolExecutor(FITS_AT_ONCE) as pool:
        yield pool


def fit_in_threads(
    fit: FitMember, data: FittingData, parts: Iterable[NDArray[Any]]
) -> list[FittedMember]:
    """Fit to each part of the rows, by a fit that neither reads nor sets state of the process."""
    with open_pool() as pool:
        return list(pool.map(lambda part: fit(data.select(part)), parts))


def fit_in_processes(
    fit: FitMember, data: FittingData, parts: Iterable[NDArray[Any]]
) -> list[FittedMember]:
    """Fit to each part of the rows, in this process and in one more, one fit at a time in each.

    `fit` is a DividedFit.
    """
    assert isinstance(fit, DividedFit)
    chosen = list(parts)
    with ProcessPoolExecutor(1, get_context("spawn")) as other:
        places: SimpleQueue[Callable[[FittingData], Any]] = SimpleQueue()
        places.put(fit.learn)
        places.put(lambda given: other.submit(fit.learn, given).result())

        def learn_part(part: NDArray[Any]) -> Any:
            place = places.get()
            try:
                return place(data.select(part))
            finally:
                places.put(place)

        with open_pool() as pool:
            learnt = list(pool.map(learn_part, chosen))
    # After all of them: a new network draws from the generator that a fit has seeded.
    return [fit.assemble(data.select(part), one) for part, one in zip(chosen, learnt, strict=True)]
