"""From the refits of a head to an interval about one person: pure functions.

Used of one person by serving and of many by the flows that fit and evaluate.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlruns_config.heads import Head
from mlruns_config.uncertainty import RefitInterval
from serving.scoring.estimate import Numbers, to_log_odds, to_probability

#: float64 [n, refits].
RefitLogOdds = NDArray[np.float64]


@dataclass(frozen=True)
class Bounds:
    """Of n people, float64 [n]: the interval, the contested probability, the width.

    `contested` is that of the refit at `queue_rank`, never below the estimate itself. `width`
    is the refits' own, in log-odds, without the margin that all have alike.
    """

    low: Numbers
    high: Numbers
    contested: Numbers
    width: Numbers


def find_bounds(
    head: Head,
    interval: RefitInterval,
    probabilities: Numbers,
    member_probabilities: Mapping[str, Numbers],
    refits: Mapping[str, RefitLogOdds],
    pattern: str,
) -> Bounds:
    """Return the bounds of people of one missing pattern, whose estimates are `probabilities`."""
    sorted_refits = sort_refits(head, interval, member_probabilities, refits, pattern)
    ends = to_log_odds(sorted_refits[:, [interval.low_rank, interval.high_rank]])
    low = to_probability(ends[:, 0] - interval.margin)
    high = to_probability(ends[:, 1] + interval.margin)
    return Bounds(
        low=np.minimum(low, probabilities),
        high=np.maximum(high, probabilities),
        contested=np.maximum(sorted_refits[:, interval.queue_rank], probabilities),
        width=ends[:, 1] - ends[:, 0],
    )


def sort_refits(
    head: Head,
    interval: RefitInterval,
    member_probabilities: Mapping[str, Numbers],
    refits: Mapping[str, RefitLogOdds],
    pattern: str,
) -> NDArray[np.float64]:
    """Return the calibrated probabilities that the refits give, ascending, float64 [n, refits].

    A weighed member without refits says in all of them what it says now.
    """
    log_odds: RefitLogOdds = np.full((1, interval.refits), head.stacker.intercept)
    for name, coefficient in head.stacker.coefficients.items():
        refitted = refits.get(name)
        if refitted is None:
            refitted = to_log_odds(np.asarray(member_probabilities[name], np.float64))[:, None]
        log_odds = log_odds + coefficient * refitted
    calibrated = head.find_calibration(pattern).apply(to_probability(log_odds))
    return np.sort(calibrated, axis=1)
