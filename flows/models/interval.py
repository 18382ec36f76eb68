"""The interval about one person: from refits on resampled people to what a release holds.

The refits' own spread is corrected on people they were not fitted on, as conformalised quantile
regression corrects its quantiles (Romano et al. 2019). What has to be held is the estimate of a
release learnt from other people: the members are fitted on two halves of the people, whose
difference, divided by the square root of two, is how far such a release strays. That is done for
HALVINGS divisions of the people. ADR 0065.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from flows.datasets.rows import ModelRows, Probabilities, number_individuals
from flows.models.data_types import find_patterns
from flows.models.families import find_fit_each
from flows.models.member import FitMember, FittingData
from flows.models.out_of_fold import Predictors
from flows.models.refits import REFITS, LogOdds, Refits
from flows.models.side_by_side import open_other_process
from flows.models.stacking import to_log_odds
from mlruns_config.heads import Head
from mlruns_config.uncertainty import RefitInterval
from serving.scoring.estimate import stack_log_odds, to_probability
from serving.scoring.uncertainty import Bounds, find_bounds

COVERAGE = 0.9
#: One division strays alike on all people of a severity: by one alone the coverage of PHQ-9
#: 15-19 was 0.66 to 0.89 in six of them. The mean of five is within 0.05 of the nominal.
HALVINGS = 5
#: Of the sorted refits: one in twenty lies beyond each end.
LOW_RANK, HIGH_RANK = REFITS // 20, REFITS - 1 - REFITS // 20
#: A quarter of the refits above it: so many must queue a person whom the estimate does not.
QUEUE_RANK = REFITS - 1 - REFITS // 4
WIDTH_QUANTILES = 21

#: float64 [halvings, rows], in log-odds.
Strayings = NDArray[np.float64]
#: Text [rows]: the name of each row's missing pattern.
Patterns = NDArray[np.str_]


@dataclass(frozen=True)
class RowOutputs:
    """What members and their refits gave for rows, by the name of the member."""

    members: Mapping[str, Probabilities]
    refits: Mapping[str, LogOdds]
    patterns: Patterns


@dataclass(frozen=True)
class Halves:
    """The weighed members, fitted on two halves of the people: as two releases would differ."""

    first: Predictors
    second: Predictors

    def measure_straying(self, head: Head, rows: ModelRows) -> Probabilities:
        """Return, in log-odds, how far a release learnt from other people strays on each row.

        Float64 [rows].
        """
        first, second = (
            to_log_odds(predict_head(half, head, rows)) for half in (self.first, self.second)
        )
        return np.asarray((first - second) / np.sqrt(2))


def fit_halves(
    families: Mapping[str, FitMember],
    names: Mapping[str, str],
    data: FittingData,
    people: pl.Series,
) -> list[Halves]:
    """Fit the named families on each half of the people, for every one of HALVINGS divisions.

    `names` are those of the families' members.
    """
    person = number_individuals(people)
    drawn = np.random.default_rng(data.seed).random((HALVINGS, int(person.max()) + 1))
    halves = [half for first in drawn[:, person] < 0.5 for half in (first, ~first)]
    with open_other_process() as other:
        fitted = {
            names[family]: find_fit_each(family, other)(fit, data, halves)
            for family, fit in families.items()
        }
    members = [{name: each[n] for name, each in fitted.items()} for n in range(len(halves))]
    return [Halves(*both) for both in zip(members[::2], members[1::2], strict=True)]


def measure_straying(halvings: Sequence[Halves], head: Head, rows: ModelRows) -> Strayings:
    """Return how far a release strays by each division of the people, in log-odds."""
    return np.array([halves.measure_straying(head, rows) for halves in halvings])


def predict_head(members: Predictors, head: Head, rows: ModelRows) -> Probabilities:
    """Return the calibrated probability of each row by its missing pattern. Float64 [rows]."""
    return calibrate_rows(head, predict_rows(members, {}, head, rows))


def predict_rows(
    members: Predictors, refits: Mapping[str, Refits], head: Head, rows: ModelRows
) -> RowOutputs:
    """Return what the weighed members of a head, and their refits, give for rows."""
    weighed = list(head.stacker.coefficients)
    return RowOutputs(
        members={name: members[name].predict(rows) for name in weighed},
        refits={n: refits[n].predict_log_odds(rows) for n in weighed if n in refits},
        patterns=find_patterns(rows),
    )


def calibrate_rows(head: Head, outputs: RowOutputs) -> Probabilities:
    """Return the calibrated probability of each row by its missing pattern. Float64 [rows]."""
    # Without a weighed member every row still gets a probability.
    log_odds = stack_log_odds(head.stacker, outputs.members) + np.zeros(len(outputs.patterns))
    return calibrate_stacked(head, to_probability(log_odds), outputs.patterns)


def calibrate_stacked(head: Head, stacked: Probabilities, patterns: Patterns) -> Probabilities:
    """Return stacked probabilities calibrated by the missing pattern of each row."""
    calibrated = np.empty(len(patterns))
    for pattern in np.unique(patterns):
        chosen = patterns == pattern
        calibrated[chosen] = head.find_calibration(str(pattern)).apply(stacked[chosen])
    return calibrated


def bound_rows(head: Head, outputs: RowOutputs) -> Bounds:
    """Return the bounds of each row, as serving finds them for one person."""
    interval = head.uncertainty
    assert interval is not None
    ours, patterns = calibrate_rows(head, outputs), outputs.patterns
    bounds = Bounds(*(np.empty(len(patterns)) for _ in range(4)))
    for pattern in np.unique(patterns):
        chosen = patterns == pattern
        part = find_bounds(
            head,
            interval,
            ours[chosen],
            {name: values[chosen] for name, values in outputs.members.items()},
            {name: values[chosen] for name, values in outputs.refits.items()},
            str(pattern),
        )
        for name in ("low", "high", "contested", "width"):
            getattr(bounds, name)[chosen] = getattr(part, name)
    return bounds


def make_interval(margin: float, widths: Probabilities | None = None) -> RefitInterval:
    """Return an interval with this margin; `widths` are those of the people learnt from."""
    spread = np.linspace(0, 1, WIDTH_QUANTILES)
    quantiles = np.zeros(2) if widths is None else np.quantile(widths, spread)
    return RefitInterval(
        coverage=COVERAGE,
        refits=REFITS,
        low_rank=LOW_RANK,
        high_rank=HIGH_RANK,
        queue_rank=QUEUE_RANK,
        margin=margin,
        widths=np.maximum.accumulate(np.maximum(quantiles, 0)).tolist(),
    )


def measure_margin(ours: Probabilities, bounds: Bounds, straying: Strayings) -> float:
    """Return by how much the refits' ends must be moved so that COVERAGE is reached.

    Of all rows in all halvings that share lies within the moved ends. Float64 [rows]; the margin
    is in log-odds.
    """
    other = to_log_odds(ours) + straying
    beyond = np.maximum(to_log_odds(bounds.low) - other, other - to_log_odds(bounds.high))
    return float(np.quantile(beyond, COVERAGE))


def measure_coverage(ours: Probabilities, bounds: Bounds, straying: Strayings) -> float:
    """Return how often an interval holds the estimate of a release learnt from other people.

    A share of all rows in all halvings.
    """
    other = to_probability(to_log_odds(ours) + straying)
    return float(((other >= bounds.low) & (other <= bounds.high)).mean())
