"""The latent weekly severity behind everything a simulated individual shows."""

from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BLOCK_SIZE = 1000

#: Weeks simulated before the first day so that episodes are already under way.
BURN_IN_WEEKS = 30

TRAIT_SD = 0.85
DRIFT_PERSISTENCE = 0.93
DRIFT_STEP_SD = 0.2
EPISODE_BASE_LOGIT = -4.9
EPISODE_RAMP_WEEKS = 8
#: Sleep and activity change before symptoms are reported.
SYMPTOMS_LAG_WEEKS = 4


@dataclass(frozen=True)
class Block:
    """The latent state of a block of individuals: weekly severity and its drivers."""

    first: int
    start: date
    days: int
    severity: Floats  # [people, weeks], logit-like, 0 = the population's mean
    prodrome: Floats  # [people, weeks], 0 to 1, how far an episode has built up
    rng: np.random.Generator

    def person_ids(self, rows: NDArray[np.int64]) -> pl.Series:
        names = pl.Series([name_person(self.first + row) for row in range(BLOCK_SIZE)])
        return names.gather(rows)


def name_person(number: int) -> str:
    return f"sim-{number:09d}"


def simulate_block(
    first: int, start: date, days: int, seed: int, more_severe: float = 0.0
) -> Block:
    """Draw the latent weekly severity of BLOCK_SIZE individuals from number `first`.

    `more_severe` is added to everybody's trait: another population, not another system.
    """
    rng = np.random.default_rng([seed, first // BLOCK_SIZE])
    weeks = days // 7 + 2
    trait = rng.normal(more_severe, TRAIT_SD, BLOCK_SIZE)
    drift = _simulate_drift(rng, weeks + BURN_IN_WEEKS)
    prodrome, lift = _simulate_episodes(rng, trait, drift)
    severity = trait[:, None] + drift + lift
    return Block(
        first=first,
        start=start,
        days=days,
        severity=severity[:, BURN_IN_WEEKS:],
        prodrome=prodrome[:, BURN_IN_WEEKS:],
        rng=rng,
    )


def _simulate_drift(rng: np.random.Generator, weeks: int) -> Floats:
    steps = rng.normal(0, DRIFT_STEP_SD, (BLOCK_SIZE, weeks))
    drift = np.zeros_like(steps)
    for week in range(1, weeks):
        drift[:, week] = DRIFT_PERSISTENCE * drift[:, week - 1] + steps[:, week]
    return drift


def _simulate_episodes(
    rng: np.random.Generator, trait: Floats, drift: Floats
) -> tuple[Floats, Floats]:
    """Return how far episodes have built up (0-1) and what they add to severity."""
    weeks = drift.shape[1]
    built = np.zeros_like(drift)
    lift = np.zeros_like(drift)
    remaining = np.zeros(BLOCK_SIZE, dtype=int)
    level = np.zeros(BLOCK_SIZE)
    size = np.zeros(BLOCK_SIZE)
    lag = SYMPTOMS_LAG_WEEKS
    for week in range(weeks):
        risk = expit(EPISODE_BASE_LOGIT + 1.2 * trait + 1.5 * drift[:, week])
        starts = (remaining == 0) & (level < 0.2) & (rng.random(BLOCK_SIZE) < risk)
        remaining[starts] = rng.integers(10, 26, starts.sum())
        size[starts] = rng.uniform(1.0, 2.4, starts.sum())
        active = remaining > 0
        level = np.where(active, np.minimum(1, level + 1 / EPISODE_RAMP_WEEKS), level * 0.8)
        remaining = np.maximum(0, remaining - 1)
        built[:, week] = level
        lift[:, week] = size * built[:, max(0, week - lag)]
    return built, lift


def make_instants(start: date, day: NDArray[np.int64], minutes: NDArray[np.int64]) -> pl.Series:
    base = np.datetime64(start, "us")
    offset = day.astype("timedelta64[D]") + minutes.astype("timedelta64[m]")
    return pl.Series(base + offset).dt.replace_time_zone("UTC").cast(pl.Datetime("us", "UTC"))


def expit(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-x)))
