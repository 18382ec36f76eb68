"""A member fitted to several parts of the rows, two parts at a time.

Most families fit on one thread and leave Python's lock, so threads will do. A network's fit seeds
torch's random generator, which is one for the whole process: the second one has its own process.
"""

import pickle
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from queue import SimpleQueue
from typing import Any

from numpy.typing import NDArray

from flows.models.member import FitMember, FittedMember, FittingData

#: Fits of one thread each that run side by side.
FITS_AT_ONCE = 2

#: Fits to each part of the rows, and returns the members in the order of the parts.
FitEach = Callable[[FitMember, FittingData, Iterable[NDArray[Any]]], list[FittedMember]]


def fit_in_threads(
    fit: FitMember, data: FittingData, parts: Iterable[NDArray[Any]]
) -> list[FittedMember]:
    """Fit to each part of the rows, by a fit that neither reads nor sets state of the process."""
    with ThreadPoolExecutor(FITS_AT_ONCE) as pool:
        return list(pool.map(lambda part: fit(data.select(part)), parts))


def fit_in_processes(
    fit: FitMember, data: FittingData, parts: Iterable[NDArray[Any]]
) -> list[FittedMember]:
    """Fit to each part of the rows, in this process and in one more, one fit at a time in each.

    `fit` is a function of a module, and its members can be pickled.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as other:

        def fit_there(given: FittingData) -> FittedMember:
            # Bytes: torch would hand its tensors over in shared memory, of which pods have little.
            member: FittedMember = pickle.loads(other.submit(fit_to_bytes, fit, given).result())
            return member

        places: SimpleQueue[FitMember] = SimpleQueue()
        places.put(fit)
        places.put(fit_there)

        def fit_part(part: NDArray[Any]) -> FittedMember:
            place = places.get()
            try:
                return place(data.select(part))
            finally:
                places.put(place)

        with ThreadPoolExecutor(FITS_AT_ONCE) as pool:
            return list(pool.map(fit_part, parts))


def fit_to_bytes(fit: FitMember, data: FittingData) -> bytes:
    """Return the fitted member, pickled."""
    return pickle.dumps(fit(data))
