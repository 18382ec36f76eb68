"""Fits to parts of the rows: alike wherever they run, in the order of the parts."""

import os
from dataclasses import dataclass

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from flows.models.member import DividedFit, FittingData
from flows.models.side_by_side import FitEach, fit_in_processes, fit_in_threads
from tests.fixtures.drawn_rows import draw_fitting_data
from tests.fixtures.simulated_rows import simulate_fitting_data

PARTS = [np.arange(20), np.arange(20, 50), np.arange(50, 60)]


@dataclass(frozen=True)
class Place:
    """Where a part was fitted, and how many rows it had."""

    process: int
    rows: int


class PlaceFit(DividedFit):
    """A fit whose member is the place of it."""

    def learn(self, data: FittingData) -> int:
        return os.getpid()

    def assemble(self, data: FittingData, learnt: int) -> Place:
        return Place(learnt, len(data.rows))


class RefusingFit(PlaceFit):
    def learn(self, data: FittingData) -> int:
        raise ValueError(f"{len(data.rows)} rows are refused")


@pytest.mark.parametrize(("fit_each", "processes"), [(fit_in_threads, 1), (fit_in_processes, 2)])
def test_members_come_in_the_order_of_the_parts(fit_each: FitEach, processes: int):
    places = fit_each(PlaceFit(), draw_fitting_data(60), PARTS)

    assert [place.rows for place in places] == [20, 30, 10]
    assert len({place.process for place in places}) == processes
    assert os.getpid() in {place.process for place in places}


def test_a_fit_that_fails_in_either_process_fails_them_all_with_its_error():
    with pytest.raises(ValueError, match="rows are refused"):
        fit_in_processes(RefusingFit(), draw_fitting_data(60), PARTS)


def test_fits_side_by_side_keep_blas_to_one_thread_and_give_it_back():
    """Sums by more threads end in other digits: the same seed would not give the same member."""
    before = count_blas_threads()

    assert fit_in_threads(lambda data: count_blas_threads(), draw_fitting_data(60), PARTS) == [
        {1},
        {1},
        {1},
    ]
    assert count_blas_threads() == before


def count_blas_threads() -> set[int]:
    with threadpool_limits(1):  # as a fit does, which must not lift the limit of the others
        pass
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_a_network_is_the_same_wherever_it_is_fitted():
    # Here: it imports torch, which the process of the tests above can do without.
    from flows.models import rnn

    data = simulate_fitting_data(200)
    everything = np.arange(len(data.rows))
    here, there = fit_in_processes(rnn.fit, data, [everything, everything])

    assert here.parameters == there.parameters
    assert here.predict(data.rows).tolist() == there.predict(data.rows).tolist()
