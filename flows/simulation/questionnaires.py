"""Answers to PHQ-9 and GAD-7: graded response models (Samejima 1969) of the latent factors."""

import numpy as np
import polars as pl

from flows.simulation.latent import BLOCK_SIZE, Block, make_instants
from flows.simulation.processes import Floats, Ints, expit

OCCASION_SD = 0.2
#: How far individuals under care lie above the general population, whose items these are.
CARE_MEAN = 0.75

#: Two correlated factors fitted to the 5,068 complete PHQ-9 of NHANES 2017-2018 by marginal
#: maximum likelihood: the discrimination of each item, and the severity at which half answer 1,
#: 2 and 3 or more. Sleep, tiredness and appetite follow the somatic factor (Patel 2019).
PHQ9_DISCRIMINATIONS = np.array([2.26, 3.56, 1.96, 2.54, 1.94, 2.77, 1.97, 1.99, 2.52])
PHQ9_THRESHOLDS = np.array(
    [
        [0.86, 1.70, 2.26],
        [0.80, 1.61, 2.06],
        [0.39, 1.32, 1.83],
        [0.04, 1.15, 1.68],
        [0.90, 1.74, 2.33],
        [1.15, 1.91, 2.34],
        [1.29, 2.04, 2.48],
        [1.66, 2.30, 2.82],
        [2.43, 3.16, 3.57],
    ]
)
SOMATIC_ITEMS = np.array([2, 3, 4])
SELF_HARM_ITEM = 8
#: Thoughts of self-harm have a part that is the individual's own, else too many of the severely ill
#: have them: item 9 is 0 in 55 % of PHQ-9 of 15 or more (NHANES). Its thresholds allow for it.
SELF_HARM_SD = 0.6

GAD7_DISCRIMINATIONS = np.full(7, 3.0)
GAD7_THRESHOLDS = np.array([0.15, 0.45, 0.25, 0.3, 0.9, 0.2, 0.8])[:, None] + [0.0, 1.0, 1.65]
ITEM_SKIP_RATE = 0.01

WEEKS_BETWEEN_SURVEYS = 6
#: RADAR-MDD: 80 % of the questionnaires were completed (Matcham 2022).
SURVEY_SKIP_RATE = 0.2
GAD7_RATE = 0.8


def simulate_surveys(block: Block) -> pl.DataFrame:
    """Answer PHQ-9 every six weeks or so, mostly with GAD-7 beside it."""
    rng = block.rng
    person, day = _choose_survey_days(block)
    minutes = rng.integers(8 * 60, 20 * 60, len(day))
    occasions = pl.DataFrame(
        {
            "person_id": block.person_ids(person),
            "answered_at": make_instants(block.start, day, minutes),
        }
    )
    own = rng.normal(0, SELF_HARM_SD, BLOCK_SIZE)[person]
    mood = rng.normal(0, OCCASION_SD, len(day))
    week = day // 7
    standing = place_on_items(
        block.severity[person, week] + mood, block.somatic[person, week] + mood, own
    )
    anxious = np.repeat((block.anxiety[person, week] + mood)[:, None], 7, axis=1)
    phq9 = draw_answers(rng, standing + CARE_MEAN, PHQ9_DISCRIMINATIONS, PHQ9_THRESHOLDS)
    gad7 = draw_answers(rng, anxious, GAD7_DISCRIMINATIONS, GAD7_THRESHOLDS)
    with_gad7 = pl.Series(rng.random(len(day)) < GAD7_RATE)
    tables = [
        _tabulate(rng, occasions, "PHQ-9", phq9),
        _tabulate(rng, occasions, "GAD-7", gad7).filter(with_gad7),
    ]
    return pl.concat(tables, how="diagonal").sort("person_id", "answered_at", "instrument")


def place_on_items(severity: Floats, somatic: Floats, self_harm: Floats) -> Floats:
    """Return the factor that each item of PHQ-9 follows, [occasions, items]."""
    standing = np.repeat(severity[:, None], len(PHQ9_THRESHOLDS), axis=1)
    standing[:, SOMATIC_ITEMS] = somatic[:, None]
    standing[:, SELF_HARM_ITEM] += self_harm
    return standing


def draw_answers(
    rng: np.random.Generator, standing: Floats, discriminations: Floats, thresholds: Floats
) -> Ints:
    """Draw answers 0-3 from the graded response model, [occasions, items]."""
    distance = standing[:, :, None] - thresholds[None]
    at_least = expit(discriminations[None, :, None] * distance)
    draw = rng.random((*standing.shape, 1))
    return np.asarray((draw < at_least).sum(axis=2))


def _tabulate(
    rng: np.random.Generator, occasions: pl.DataFrame, instrument: str, answers: Ints
) -> pl.DataFrame:
    items = pl.DataFrame(answers, schema=[f"item_{n + 1}" for n in range(answers.shape[1])])
    skipped = rng.random(answers.shape) < ITEM_SKIP_RATE
    return occasions.with_columns(pl.lit(instrument).alias("instrument")).hstack(
        [
            pl.select(pl.when(pl.Series(~skipped[:, n])).then(item).cast(pl.Int8))
            .to_series()
            .alias(item.name)
            for n, item in enumerate(items)
        ]
    )


def _choose_survey_days(block: Block) -> tuple[Ints, Ints]:
    """Return (row, day) of every answered questionnaire occasion."""
    rng = block.rng
    gap = WEEKS_BETWEEN_SURVEYS * 7
    slots = block.days // gap
    offset = rng.integers(0, gap, BLOCK_SIZE)
    jitter = rng.integers(-6, 7, (BLOCK_SIZE, slots))
    days = np.clip(offset[:, None] + gap * np.arange(slots) + jitter, 0, block.days - 1)
    # Who is unwell skips more often: missing answers are not missing at random.
    unwell = np.take_along_axis(block.severity, days // 7, axis=1)
    skip = SURVEY_SKIP_RATE * (1 + 0.35 * np.tanh(unwell))
    answered = rng.random((BLOCK_SIZE, slots)) > skip
    answered &= days // 7 < block.last_week[:, None]
    rows, slots_answered = np.nonzero(answered)
    return rows, days[rows, slots_answered]
