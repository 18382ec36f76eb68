"""Members fitted again on resampled people: how far an estimate depends on who was learnt from.

Each refit counts every individual as often as a draw with replacement took them (bootstrap),
with all their rows. Refits of one family share a graph, so that serving evaluates them together.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx
import polars as pl
from numpy.typing import NDArray
from onnx import TensorProto, helper
from scipy.special import expit

from flows.datasets.rows import ModelRows, number_individuals
from flows.models.member import (
    FittingData,
    choose_input,
    measure_difference,
    open_graph,
    run_in_parts,
)
from mlruns_config.uncertainty import REFITS_OUTPUT

#: Tried on the simulated cohort: 40 gave the same coverage for twice the time.
REFITS = 20

#: float64 [refits, rows]: how often each refit counts each row.
Counts = NDArray[np.float64]
#: float64 [rows, refits].
LogOdds = NDArray[np.float64]


class Refits(Protocol):
    """The refits of one member."""

    def predict_log_odds(self, rows: ModelRows) -> LogOdds:
        """Return each refit's log-odds of the outcome for each row."""

    def export_graph(self) -> onnx.ModelProto:
        """Return all refits as one graph: features [n, columns] to `log_odds` [n, refits]."""


@dataclass(frozen=True)
class FittedRefits:
    """The refits of one member, and the log-odds that they give of the rows they learnt from."""

    refits: Refits
    log_odds: LogOdds


#: Takes the fitted member, what it was fitted on and the counts of its rows.
Refit = Callable[[Any, FittingData, Counts], Refits]


def draw_counts(individuals: pl.Series, seed: int, refits: int = REFITS) -> Counts:
    """Draw individuals with replacement for each refit; return how often each row counts."""
    random = np.random.default_rng(seed)
    person = number_individuals(individuals)
    people = int(person.max()) + 1
    drawn = random.multinomial(people, np.full(people, 1 / people), size=refits)
    return drawn[:, person].astype(np.float64)


def make_refits_output(refits: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(REFITS_OUTPUT, TensorProto.FLOAT, [None, refits])


def check_refits(log_odds: LogOdds, graph: onnx.ModelProto, rows: ModelRows) -> float:
    """Return the largest difference in probability between a graph and the library's `log_odds`.

    Raises ParityError where it is too large.
    """
    session = open_graph(graph)
    (scored,) = run_in_parts(session, [REFITS_OUTPUT], choose_input(session, rows))
    by_graph, by_library = expit(scored.astype(np.float64)), expit(log_odds)
    return measure_difference("graph and library of the refits", by_graph, by_library)
