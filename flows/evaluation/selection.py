"""Which members earn their place: forward selection against the baseline.

Complex members add 0.006 to 0.020 of AUROC over a regression in published work
(Shortreed 2023), so each must show its gain on out-of-fold predictions, beyond the
bootstrap interval by individual, before it is weighed at all.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flows.datasets.rows import Individuals, Labels, Probabilities
from flows.evaluation.metrics import auroc, bootstrap_difference, draw_bootstrap_rows
from flows.models.families import BASELINE
from flows.models.stacking import fit_stacker, stack

SELECTION_ROUNDS = 200


@dataclass(frozen=True)
class Decision:
    """Whether a member joins: its gain in out-of-fold AUROC with its 95 % interval."""

    member: str
    joins: bool
    gain: float
    gain_low: float
    gain_high: float

    def describe(self) -> str:
        standing = "joins" if self.joins else "is left out"
        interval = f"{self.gain_low:+.4f} to {self.gain_high:+.4f}"
        return f"{self.member} {standing}: {self.gain:+.4f} ({interval})"


def select_members(
    predictions: Mapping[str, Probabilities],
    labels: Labels,
    individuals: Individuals,
    seed: int,
    baseline: str = BASELINE,
) -> list[Decision]:
    """Add members to the baseline, the best first, while one gains beyond its interval.

    Returns a decision for every member but the baseline, in the order they were taken; those left
    out come last, the largest gain first. Every member's probabilities are float64 [rows], labels
    bool [rows].
    """
    rounds = draw_bootstrap_rows(individuals, seed, SELECTION_ROUNDS)
    chosen: list[str] = [baseline]
    decisions: list[Decision] = []
    waiting = [name for name in predictions if name != baseline]
    while waiting:
        candidates = [
            judge_candidate(name, chosen, predictions, labels, rounds) for name in waiting
        ]
        # A large but unsure gain must not stand in the way of a smaller one that is sure.
        candidates.sort(key=lambda candidate: (candidate.joins, candidate.gain), reverse=True)
        best = candidates[0]
        if not best.joins:
            return [*decisions, *candidates]
        decisions.append(best)
        chosen.append(best.member)
        waiting.remove(best.member)
    return decisions


def judge_candidate(
    name: str,
    chosen: list[str],
    predictions: Mapping[str, Probabilities],
    labels: Labels,
    rounds: list[NDArray[np.int64]],
) -> Decision:
    """Compare the stack with and without a candidate on the same rows."""
    without = stack_subset(chosen, predictions, labels)
    joined = stack_subset([*chosen, name], predictions, labels)
    low, high = bootstrap_difference(auroc, labels, joined, without, rounds)
    gain = auroc(labels, joined) - auroc(labels, without)
    return Decision(name, low > 0, gain, low, high)


def stack_subset(
    names: list[str], predictions: Mapping[str, Probabilities], labels: Labels
) -> Probabilities:
    chosen = {name: predictions[name] for name in names}
    return stack(fit_stacker(chosen, labels), chosen)
