"""Fits to parts of the rows: alike wherever they run, in the order of the parts."""

import os
from dataclasses import dataclass

import numpy as np
import pytest

from flows.models.member import FittingData
from flows.models.side_by_side import FitEach, fit_in_processes, fit_in_threads
from tests.fixtures.drawn_rows import draw_fitting_data
from tests.fixtures.simulated_rows import simulate_fitting_data

PARTS = [np.arange(20), np.arange(20, 50), np.arange(50, 60)]


@dataclass(frozen=True)
class Place:
    """Where a part was fitted, and how many rows it had."""

    process: int
    rows: int


def note_place(data: FittingData) -> Place:
    return Place(os.getpid(), len(data.rows))


def refuse(data: FittingData) -> Place:
    raise ValueError(f"{len(data.rows)} rows are refused")


@pytest.mark.parametrize(("fit_each", "processes"), [(fit_in_threads, 1), (fit_in_processes, 2)])
def test_members_come_in_the_order_of_the_parts(fit_each: FitEach, processes: int):
    places = fit_each(note_place, draw_fitting_data(60), PARTS)

    assert [place.rows for place in places] == [20, 30, 10]
    assert len({place.process for place in places}) == processes
    assert os.getpid() in {place.process for place in places}


def test_a_fit_that_fails_in_either_process_fails_them_all_with_its_error():
    with pytest.raises(ValueError, match="rows are refused"):
        fit_in_processes(refuse, draw_fitting_data(60), PARTS)


def test_a_network_is_the_same_wherever_it_is_fitted():
    # Here: it imports torch, which the process of the tests above can do without.
    from flows.models import rnn

    data = simulate_fitting_data(200)
    everything = np.arange(len(data.rows))
    here, there = fit_in_processes(rnn.fit, data, [everything, everything])

    assert here.parameters == there.parameters
    assert here.predict(data.rows).tolist() == there.predict(data.rows).tolist()
