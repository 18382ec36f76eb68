"""Courses of an antidepressant: who is ill starts them, and they relieve the illness a little."""

from dataclasses import dataclass

import numpy as np

from flows.simulation.processes import Bools, Floats

#: Weekly hazard of a course at severity 0, and how it rises with severity.
LOG_START_HAZARD, START_EFFECT = -4.6, 0.6
MEAN_WEEKS = 30
#: Weeks until a course works in full, and the share of its effect that a week without it keeps.
ONSET_WEEKS, KEPT_AFTER = 6, 0.8
#: What a course takes off severity: on average 0.30 standard deviations of PHQ-9, the difference
#: from placebo in trials (Cipriani 2018); it varies between individuals, by design.
MEAN_BENEFIT, BENEFIT_SHAPE = 0.37, 1.5
WEEKS_BETWEEN_ORDERS = 8


@dataclass(frozen=True)
class Treatment:
    """Treatment of a block, [people, weeks] each: prescriptions, and severity they took off."""

    ordered: Bools
    relief: Floats

    def skip(self, weeks: int) -> "Treatment":
        return Treatment(self.ordered[:, weeks:], self.relief[:, weeks:])


def simulate_treatment(rng: np.random.Generator, untreated: Floats, access: Floats) -> Treatment:
    """Draw courses that begin by chance, rising with present severity and access to care."""
    people, weeks = untreated.shape
    ordered = np.zeros((people, weeks), dtype=bool)
    relief = np.zeros((people, weeks))
    begun = np.zeros(people, dtype=int)
    end = np.full(people, -1)
    level, benefit = np.zeros(people), np.zeros(people)
    for week in range(weeks):
        ill = untreated[:, week] - level * benefit
        hazard = np.exp(LOG_START_HAZARD + START_EFFECT * ill) * access
        starts = (week > end) & (level < 0.2) & (rng.random(people) < hazard)
        begun[starts] = week
        end[starts] = week + rng.geometric(1 / MEAN_WEEKS, starts.sum())
        benefit[starts] = rng.gamma(BENEFIT_SHAPE, MEAN_BENEFIT / BENEFIT_SHAPE, starts.sum())
        taken = week <= end
        level = np.where(taken, np.minimum(1, level + 1 / ONSET_WEEKS), level * KEPT_AFTER)
        ordered[:, week] = taken & ((week - begun) % WEEKS_BETWEEN_ORDERS == 0)
        relief[:, week] = level * benefit
    return Treatment(ordered, relief)
