"""Fits to parts of the rows: alike wherever they run, in the order of the parts."""

import os
from collections.abc import Iterator
from concurrent.futures import Executor

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from flows.models.side_by_side import fit_in_processes, fit_in_threads, open_other_process
from tests.fixtures.divided_fits import PlaceFit, RefusingFit
from tests.fixtures.drawn_rows import draw_fitting_data
from tests.fixtures.simulated_rows import simulate_fitting_data

PARTS = [np.arange(20), np.arange(20, 50), np.arange(50, 60)]


@pytest.fixture(scope="module")
def other() -> Iterator[Executor]:
    with open_other_process() as process:
        yield process


def test_members_fitted_in_threads_come_in_the_order_of_the_parts():
    places = fit_in_threads(PlaceFit(), draw_fitting_data(60), PARTS)

    assert [(place.process, place.rows) for place in places] == [
        (os.getpid(), rows) for rows in (20, 30, 10)
    ]


def test_members_fitted_in_processes_come_in_the_order_of_the_parts(other: Executor):
    places = fit_in_processes(other, PlaceFit(), draw_fitting_data(60), PARTS)

    assert [place.rows for place in places] == [20, 30, 10]
    assert {place.process for place in places} == {os.getpid(), other.submit(os.getpid).result()}


def test_only_the_first_members_asked_for_are_exported(other: Executor):
    places = fit_in_processes(other, PlaceFit(), draw_fitting_data(60), PARTS, 2)

    assert [place.exported for place in places] == [True, True, False]


def test_a_fit_that_fails_in_either_process_fails_them_all_with_its_error(other: Executor):
    with pytest.raises(ValueError, match="rows are refused"):
        fit_in_processes(other, RefusingFit(), draw_fitting_data(60), PARTS)


def test_fits_side_by_side_keep_blas_to_one_thread_and_give_it_back():
    """Sums by more threads end in other digits: the same seed would not give the same member."""
    # More than one, whatever the environment of the tests says.
    with threadpool_limits(2):
        assert count_blas_threads() == {2}
        assert fit_in_threads(lambda data: count_blas_threads(), draw_fitting_data(60), PARTS) == [
            {1},
            {1},
            {1},
        ]
        assert count_blas_threads() == {2}


def count_blas_threads() -> set[int]:
    with threadpool_limits(1):  # as a fit does, which must not lift the limit of the others
        pass
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_a_network_is_the_same_wherever_it_is_fitted(other: Executor):
    # Here: it imports torch, which the process of the tests above can do without.
    from flows.models import rnn

    data = simulate_fitting_data(200)
    everything = np.arange(len(data.rows))
    here, there = fit_in_processes(other, rnn.fit, data, [everything, everything], 1)

    assert here.parameters == there.parameters
    assert here.predict(data.rows).tolist() == there.predict(data.rows).tolist()
    # Exported beside its fit, and on demand: the graphs differ in no node.
    assert [one.exported is None for one in (here, there)] == [False, True]
    assert here.export_graph() == there.export_graph()
    assert here.export_files() == there.export_files()
