"""The noise floor of an outcome: how often it would occur if no person changed.

A total is a true score and an error; the reliability of PHQ-9 is its correlation with itself 48
hours later (0.84, Kroenke 2001, doi 10.1046/j.1525-1497.2001.016009606.x). Answers are drawn again
for every later questionnaire of a row, the true score being what today's total makes likely.
"""

import numpy as np
from numpy.typing import NDArray

from feature_repo.instruments import PHQ9, PHQ9_CASE_CUTOFF, PHQ9_SIGNIFICANT_CHANGE
from feature_repo.outcomes import PHQ9_SEVERE_COURSE
from flows.datasets.training_set import TrainingSet

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

RELIABILITY = 0.84
ROUNDS = 20
#: Rows that are redrawn, at most.
MAX_ROWS = 20_000


def measure_noise_floor(training_set: TrainingSet, seed: int) -> dict[str, float]:
    """Return the share of rows with each outcome if no person changed, and the observed shares.

    Of the rows with a PHQ-9 and a later one; empty where there are none.
    """
    totals, futures = training_set.read_phq9_totals(), training_set.futures
    rows = np.flatnonzero(np.isfinite(totals) & np.isfinite(futures).any(axis=1))
    if not rows.size:
        return {}
    rows = np.random.default_rng(seed).permutation(rows)[:MAX_ROWS]
    redrawn = redraw_answers(totals[rows], futures[rows].astype(np.float64), seed)
    severe, risen = _find_outcomes(totals[rows][:, None, None], redrawn)
    return {
        "noise_floor_adverse_course": float((severe | risen).mean()),
        "noise_floor_worsening": float(risen.mean()),
        "standard_error_of_phq9": _measure_error(totals[rows]),
    }


def redraw_answers(totals: Numbers, futures: Numbers, seed: int) -> Numbers:
    """Return later totals of people who did not change, [rows, weeks, ROUNDS], NaN as before."""
    random = np.random.default_rng(seed)
    error, mean, spread = _measure_error(totals), float(totals.mean()), float(totals.std())
    likely = mean + RELIABILITY * (totals - mean)
    doubt = spread * np.sqrt(RELIABILITY * (1 - RELIABILITY))
    true = likely[:, None] + doubt * random.normal(size=(len(totals), ROUNDS))
    drawn = true[:, None, :] + error * random.normal(size=(*futures.shape, ROUNDS))
    asked = np.isfinite(futures)[:, :, None]
    return np.where(asked, np.clip(np.round(drawn), 0, PHQ9.max_total), np.nan)


def _measure_error(totals: Numbers) -> float:
    return float(totals.std() * np.sqrt(1 - RELIABILITY))


def _find_outcomes(totals: Numbers, later: Numbers) -> tuple[Mask, Mask]:
    """Return whether one later total is severe, or a marked rise; bool [rows, ROUNDS]."""
    severe = np.asarray((later >= PHQ9_SEVERE_COURSE).any(axis=1))
    risen = (later >= PHQ9_CASE_CUTOFF) & (later - totals >= PHQ9_SIGNIFICANT_CHANGE)
    return severe, np.asarray(risen.any(axis=1))
