"""The latent weekly course behind everything a simulated individual shows."""

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import polars as pl

from flows.simulation.demographics import Demographics, draw_demographics
from flows.simulation.groups import Differences, find_differences
from flows.simulation.participation import LEAVING_HAZARD, simulate_last_weeks
from flows.simulation.processes import Bools, Floats, Ints, draw_autoregression, expit
from flows.simulation.treatment import Treatment, simulate_treatment

BLOCK_SIZE = 1000

#: Weeks simulated before the first day so that episodes are already under way.
BURN_IN_WEEKS = 30
#: Weeks of care that are on record before the first day: people have a past when they consent.
PAST_WEEKS = 156

TRAIT_SD = 0.65
DRIFT_PERSISTENCE = 0.93
DRIFT_SD = 0.3
EPISODE_BASE_LOGIT = -4.9
EPISODE_RAMP_WEEKS = 8
#: Least and most that an episode adds to severity.
EPISODE_SIZES = (0.6, 1.4)
#: Sleep and activity change before symptoms are reported.
SYMPTOMS_LAG_WEEKS = 4
#: Rise from the yearly mean to the middle of January, and how it varies between individuals: most
#: studies find little or nothing (Overland 2019), a few people have a marked pattern.
SEASON_MEAN, SEASON_SD = 0.05, 0.1
PEAK_DAY = 15

#: Correlation of the two factors of PHQ-9 where severity has the spread of the general population
#: (fitted to NHANES 2017-2018; Patel 2019 has the factors), and of anxiety with depression.
SOMATIC_CORRELATION = 0.875
ANXIETY_CORRELATION = 0.9


@dataclass(frozen=True)
class Course:
    """Severity, episodes and treatment of a block week by week, [people, weeks] each."""

    severity: Floats
    prodrome: Floats  # 0 to 1, how far an episode has built up
    treatment: Treatment


@dataclass(frozen=True)
class Period:
    """A span of weeks in which care answers severity, [people, weeks] each."""

    start: date
    severity: Floats
    ordered: Bools
    rng: np.random.Generator


@dataclass(frozen=True)
class Block:
    """The latent state of a block of individuals, [people, weeks] where nothing else is stated.

    Severity is in standard deviations of the general population (NHANES), 0 is this population's
    own middle. Somatic symptoms and anxiety are on the same scale.
    """

    first: int
    start: date
    days: int
    demographics: Demographics
    differences: Differences
    severity: Floats
    somatic: Floats
    anxiety: Floats
    prodrome: Floats  # 0 to 1, how far an episode has built up
    treatment: Treatment
    last_week: Ints  # [people], the week in which each leaves
    past: Period  # the PAST_WEEKS before the first day
    rng: np.random.Generator

    def person_ids(self, rows: Ints) -> pl.Series:
        names = pl.Series([name_person(self.first + row) for row in range(BLOCK_SIZE)])
        return names.gather(rows)


def name_person(number: int) -> str:
    return f"sim-{number:09d}"


def simulate_block(
    first: int, start: date, days: int, seed: int, more_severe: float = 0.0
) -> Block:
    """Draw the latent course of BLOCK_SIZE individuals from number `first`.

    `more_severe` is added to each trait: another population, not another system.
    """
    rng = np.random.default_rng([seed, first // BLOCK_SIZE])
    weeks = days // 7 + 2 + BURN_IN_WEEKS
    demographics = draw_demographics(rng, BLOCK_SIZE)
    differences = find_differences(demographics)
    trait = rng.normal(more_severe, TRAIT_SD, BLOCK_SIZE) + differences.severity
    course = _simulate_course(rng, trait, differences.access, start, weeks)
    severity = course.severity[:, BURN_IN_WEEKS:]
    return Block(
        first=first,
        start=start,
        days=days,
        demographics=demographics,
        differences=differences,
        severity=severity,
        somatic=_draw_companion(rng, severity, SOMATIC_CORRELATION),
        anxiety=_draw_companion(rng, severity, ANXIETY_CORRELATION),
        prodrome=course.prodrome[:, BURN_IN_WEEKS:],
        treatment=course.treatment.skip(BURN_IN_WEEKS),
        last_week=simulate_last_weeks(rng, severity, LEAVING_HAZARD, differences.leaving),
        past=_simulate_past(rng.spawn(1)[0], trait, differences.access, course, start),
        rng=rng,
    )


def _simulate_course(
    rng: np.random.Generator, trait: Floats, access: Floats, start: date, weeks: int
) -> Course:
    """Draw a course of so many weeks, of which BURN_IN_WEEKS are before `start`."""
    drift = DRIFT_SD * draw_autoregression(rng, BLOCK_SIZE, weeks, DRIFT_PERSISTENCE)
    prodrome, lift = _simulate_episodes(rng, trait, drift)
    untreated = trait[:, None] + drift + lift + _simulate_season(rng, start, weeks)
    treatment = simulate_treatment(rng, untreated, access)
    return Course(untreated - treatment.relief, prodrome, treatment)


def _simulate_past(
    rng: np.random.Generator, trait: Floats, access: Floats, course: Course, start: date
) -> Period:
    """Draw the weeks before the burn-in of a course, and append those of the burn-in.

    They have random numbers of their own: the length of the record changes nothing after it.
    """
    begin = start - timedelta(weeks=PAST_WEEKS)
    earlier = _simulate_course(rng, trait, access, begin, PAST_WEEKS)
    before, after = earlier.treatment.skip(BURN_IN_WEEKS), course.treatment
    return Period(
        start=begin,
        severity=np.hstack(
            [earlier.severity[:, BURN_IN_WEEKS:], course.severity[:, :BURN_IN_WEEKS]]
        ),
        ordered=np.hstack([before.ordered, after.ordered[:, :BURN_IN_WEEKS]]),
        rng=rng,
    )


def _draw_companion(rng: np.random.Generator, severity: Floats, correlation: float) -> Floats:
    """Return a factor of its own that follows severity: half of its own part stays for good."""
    people, weeks = severity.shape
    stays = rng.standard_normal((people, 1))
    wanders = draw_autoregression(rng, people, weeks, DRIFT_PERSISTENCE)
    own = np.sqrt(0.5) * (stays + wanders)
    return np.asarray(correlation * severity + np.sqrt(1 - correlation**2) * own)


def _simulate_season(rng: np.random.Generator, start: date, weeks: int) -> Floats:
    """Return what the season adds to severity, weeks before the first day included."""
    amplitude = rng.normal(SEASON_MEAN, SEASON_SD, (BLOCK_SIZE, 1))
    begin = start - timedelta(weeks=BURN_IN_WEEKS)
    return amplitude * find_winter(begin, 7 * np.arange(weeks))


def find_winter(start: date, days: Ints) -> Floats:
    """Return 1 in the middle of January to -1 in the middle of July, for days after `start`."""
    year_day = start.timetuple().tm_yday + days
    return np.asarray(np.cos(2 * np.pi * (year_day - PEAK_DAY) / 365.25))


def _simulate_episodes(
    rng: np.random.Generator, trait: Floats, drift: Floats
) -> tuple[Floats, Floats]:
    """Return how far episodes have built up (0-1) and what they add to severity."""
    weeks = drift.shape[1]
    built = np.zeros(drift.shape)
    lift = np.zeros(drift.shape)
    remaining = np.zeros(BLOCK_SIZE, dtype=int)
    level = np.zeros(BLOCK_SIZE)
    size = np.zeros(BLOCK_SIZE)
    lag = SYMPTOMS_LAG_WEEKS
    for week in range(weeks):
        risk = expit(EPISODE_BASE_LOGIT + 1.2 * trait + 1.5 * drift[:, week])
        starts = (remaining == 0) & (level < 0.2) & (rng.random(BLOCK_SIZE) < risk)
        remaining[starts] = rng.integers(10, 26, starts.sum())
        size[starts] = rng.uniform(*EPISODE_SIZES, starts.sum())
        active = remaining > 0
        level = np.where(active, np.minimum(1, level + 1 / EPISODE_RAMP_WEEKS), level * 0.8)
        remaining = np.maximum(0, remaining - 1)
        built[:, week] = level
        lift[:, week] = size * built[:, max(0, week - lag)]
    return built, lift


def make_instants(start: date, day: Ints, minutes: Ints) -> pl.Series:
    base = np.datetime64(start, "us")
    offset = day.astype("timedelta64[D]") + minutes.astype("timedelta64[m]")
    return pl.Series(base + offset).dt.replace_time_zone("UTC").cast(pl.Datetime("us", "UTC"))
