"""From feature values to probability, score and band: pure functions.

All numbers that decide come with the release (its manifest) or from the settings.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from feature_repo.consent_terms import DATA_TYPES
from mlruns_config.heads import Head, ScoreMap, Stacker
from mlruns_config.manifest import FeatureDescription, ReleaseManifest, SequenceDescription
from mlruns_config.missing import HISTORY, NOTHING, name_pattern

#: Member probabilities are kept this far from 0 and 1, where log-odds are infinite.
PROBABILITY_MARGIN = 1e-6

#: Scores are shown and compared to one decimal.
SCORE_STEP = 0.1

#: float64 [n].
Numbers = NDArray[np.float64]
#: float32 [1, features].
Vector = NDArray[np.float32]
#: float32 [1, weeks, channels].
WeeklySequence = NDArray[np.float32]


@dataclass(frozen=True)
class Inputs:
    """What the members of a release are given: of one individual, or of a setting in each row."""

    vector: Vector
    sequence: WeeklySequence | None = None

    def pick(self, name: str) -> NDArray[np.float32]:
        """Return the input of a graph by its name, "features" or "sequence".

        Float32 [1, columns] or [1, weeks, channels].
        """
        if name == "features":
            return self.vector
        # A manifest that names a sequence member describes the sequence.
        assert self.sequence is not None
        return self.sequence


class Band(StrEnum):
    """Review priority. Never a statement about how safe a person is."""

    LOW = "low"
    MODERATE = "moderate"
    HIGH = "high"
    CRITICAL = "critical"


@dataclass(frozen=True)
class BandEdges:
    """The highest score of each band but the top one."""

    low: float = 25
    moderate: float = 50
    high: float = 75

    def find_band(self, score: float) -> Band:
        if score <= self.low:
            return Band.LOW
        if score <= self.moderate:
            return Band.MODERATE
        return Band.HIGH if score <= self.high else Band.CRITICAL

    def find_least_score(self, band: Band) -> float:
        """Return the lowest score, to one decimal, that `find_band` puts into a band."""
        below = {Band.MODERATE: self.low, Band.HIGH: self.moderate, Band.CRITICAL: self.high}
        return round(below[band] + SCORE_STEP, 1) if band in below else 0.0


def assemble_vector(
    features: Sequence[FeatureDescription], values: Mapping[str, float | None]
) -> Vector:
    """Return the models' input row, float32 [1, len(features)], NaN where missing."""
    row = [values.get(feature.name) for feature in features]
    vector = np.array([[np.nan if value is None else value for value in row]], dtype=np.float32)
    # An infinite value is no measurement either.
    vector[~np.isfinite(vector)] = np.nan
    return vector


def assemble_sequence(
    description: SequenceDescription,
    sequences: Mapping[str, Sequence[float]],
    consented: Collection[str],
) -> WeeklySequence:
    """Return the weekly sequence, NaN for what is unknown or not consented to."""
    unknown = [np.nan] * description.weeks
    channels = [
        sequences.get(f"weekly_{channel.name}", unknown)
        if channel.data_type in consented
        else unknown
        for channel in description.channels
    ]
    return np.array(channels, dtype=np.float32).T[None]


def list_missing_data(manifest: ReleaseManifest, vector: Vector) -> list[str]:
    """Return the data types without a single value among the models' inputs."""
    unknown = np.isnan(vector[0])
    return [
        data_type for data_type in DATA_TYPES if unknown[manifest.columns_by_part[data_type]].all()
    ]


def find_pattern(manifest: ReleaseManifest, vector: Vector, missing: Collection[str]) -> str:
    """Return the name of the missing pattern; `missing` names data types without any value."""
    history = manifest.columns_by_part[HISTORY]
    lacks_history = history.size > 0 and bool(np.isnan(vector[0, history]).all())
    return name_pattern([*missing, HISTORY] if lacks_history else missing)


def estimate_probabilities(
    head: Head | ReleaseManifest,
    member_probabilities: Mapping[str, Numbers],
    pattern: str = NOTHING,
) -> Numbers:
    """Return the calibrated probabilities of n individuals, float64 [n].

    A release stands for its priority's head.
    """
    head = head.priority if isinstance(head, ReleaseManifest) else head
    stacked = to_probability(stack_log_odds(head.stacker, member_probabilities))
    return head.find_calibration(pattern).apply(stacked)


def stack_log_odds(stacker: Stacker, member_probabilities: Mapping[str, Numbers]) -> Numbers:
    """Return the stacker's log-odds; raises KeyError when a weighted member is missing."""
    log_odds: Numbers = np.array([stacker.intercept])
    for name, coefficient in stacker.coefficients.items():
        log_odds = log_odds + coefficient * to_log_odds(member_probabilities[name])
    return log_odds


def to_log_odds(probabilities: Numbers) -> Numbers:
    # np.clip takes six times as long for one number.
    kept = np.minimum(np.maximum(probabilities, PROBABILITY_MARGIN), 1 - PROBABILITY_MARGIN)
    return np.log(kept) - np.log1p(-kept)


def to_probability(log_odds: Numbers) -> Numbers:
    # The argument of exp stays negative, so it cannot overflow.
    tail = np.exp(-np.abs(log_odds))
    return np.where(log_odds >= 0, 1, tail) / (1 + tail)


def map_to_score(score_map: ScoreMap, probability: float) -> float:
    """Return the 0-100 score, to one decimal as it is shown and compared."""
    return round(float(score_map.apply(np.array(probability))), 1)
