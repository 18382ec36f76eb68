"""Answers to PHQ-9 and GAD-7: a graded response model (Samejima 1969) of the severity."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from flows.simulation.latent import BLOCK_SIZE, Block, Floats, expit, make_instants

OCCASION_SD = 0.3

#: Item thresholds of the graded response model: how hard "several days" is to endorse.
#: Their order follows item means of NHANES 2017-2018 (tiredness first, self-harm last).
PHQ9_FIRST_THRESHOLDS = np.array([0.45, 0.5, 0.1, -0.2, 0.6, 0.75, 0.75, 1.45, 2.0])
GAD7_FIRST_THRESHOLDS = np.array([0.15, 0.45, 0.25, 0.3, 0.9, 0.2, 0.8])
#: Distance of "more than half the days" and "nearly every day" from "several days".
THRESHOLD_STEPS = np.array([0.0, 1.0, 1.65])
DISCRIMINATION = 2.1
ITEM_SKIP_RATE = 0.01

WEEKS_BETWEEN_SURVEYS = 6
SURVEY_SKIP_RATE = 0.22
GAD7_RATE = 0.8


def simulate_surveys(block: Block) -> pl.DataFrame:
    """Answer PHQ-9 every six weeks or so, mostly with GAD-7 beside it."""
    person, day = _choose_survey_days(block)
    minutes = block.rng.integers(8 * 60, 20 * 60, len(day))
    occasions = pl.DataFrame(
        {
            "person_id": block.person_ids(person),
            "answered_at": make_instants(block.start, day, minutes),
        }
    )
    severity = block.severity[person, day // 7] + block.rng.normal(0, OCCASION_SD, len(day))
    with_gad7 = block.rng.random(len(day)) < GAD7_RATE
    phq9 = _answer(block.rng, occasions, "PHQ-9", severity, PHQ9_FIRST_THRESHOLDS)
    gad7 = _answer(block.rng, occasions, "GAD-7", severity, GAD7_FIRST_THRESHOLDS)
    return pl.concat([phq9, gad7.filter(pl.Series(with_gad7))], how="diagonal").sort(
        "person_id", "answered_at", "instrument"
    )


def _answer(
    rng: np.random.Generator,
    occasions: pl.DataFrame,
    instrument: str,
    severity: Floats,
    thresholds: Floats,
) -> pl.DataFrame:
    answers = _answer_items(rng, severity, thresholds)
    items = pl.DataFrame(answers, schema=[f"item_{n + 1}" for n in range(len(thresholds))])
    skipped = rng.random(answers.shape) < ITEM_SKIP_RATE
    return occasions.with_columns(pl.lit(instrument).alias("instrument")).hstack(
        [
            pl.select(pl.when(pl.Series(~skipped[:, n])).then(item).cast(pl.Int8))
            .to_series()
            .alias(item.name)
            for n, item in enumerate(items)
        ]
    )


def _choose_survey_days(block: Block) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
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
    rows, slots_answered = np.nonzero(answered)
    return rows, days[rows, slots_answered]


def _answer_items(rng: np.random.Generator, severity: Floats, first: Floats) -> NDArray[np.int64]:
    """Draw answers 0-3 from the graded response model, [occasions, items]."""
    thresholds = first[None, :, None] + THRESHOLD_STEPS[None, None, :]
    at_least = expit(DISCRIMINATION * (severity[:, None, None] - thresholds))
    draw = rng.random((len(severity), len(first), 1))
    return np.asarray((draw < at_least).sum(axis=2))
