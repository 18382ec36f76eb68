"""A release's estimate of one person, and reasons against relying on it: pure functions."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from feature_repo.consent_terms import DATA_TYPES
from mlruns_config.heads import Head, WorseningHead
from mlruns_config.manifest import ReleaseManifest
from mlruns_config.missing import NOTHING
from serving.scoring.estimate import (
    Numbers,
    estimate_probabilities,
    map_to_score,
    stack_log_odds,
    to_probability,
)
from serving.scoring.uncertainty import Bounds, RefitLogOdds, find_bounds


class Doubt(StrEnum):
    """Why an estimate does not stand alone: a person has to look."""

    NOTHING_KNOWN = "nothing_known"
    UNFAMILIAR = "unfamiliar"


@dataclass(frozen=True)
class Interval:
    """Where releases learnt from other people put this person's probability."""

    low: float
    high: float

    @property
    def width(self) -> float:
        return self.high - self.low


@dataclass(frozen=True)
class Outputs:
    """What the parts of a release gave for one person.

    `members` are probabilities by name, `refits` the log-odds of a member's refits, float64
    [1, refits]; `unfamiliarity` is None where the release has no forest.
    """

    members: Mapping[str, float]
    refits: Mapping[str, RefitLogOdds] = field(default_factory=dict)
    unfamiliarity: float | None = None

    def as_numbers(self) -> dict[str, Numbers]:
        return {name: np.array([value]) for name, value in self.members.items()}


@dataclass(frozen=True)
class WorseningEstimate:
    """A release's estimate of `worsening`; `probability` is None where there is none.

    `is_severe`: so ill already that severity itself is the message. `is_likely` rises with
    symptoms up to there, and is False from there on.
    """

    outcome: str
    probability: float | None
    interval: Interval | None
    is_likely: bool
    is_severe: bool


@dataclass(frozen=True)
class Estimate:
    """A release's estimate of one individual.

    `contested_score` is the score that a quarter of the refits exceed, at least `score`: where
    it belongs into the queue and the score does not, the refits do not agree.
    """

    probability: float
    score: float
    interval: Interval | None
    confidence: float
    contested_score: float
    doubts: tuple[Doubt, ...] = ()
    worsening: WorseningEstimate | None = None


def estimate(
    manifest: ReleaseManifest,
    outputs: Outputs,
    missing: Collection[str],
    pattern: str = NOTHING,
    phq9_total: float = np.nan,
) -> Estimate:
    """Combine what the parts of a release gave for one person as the release does.

    `missing` names data types, `pattern` the missing pattern that calibrates.
    """
    members = outputs.as_numbers()
    ours = estimate_probabilities(manifest, members, pattern)
    bounds = _bound(manifest.priority, ours, members, outputs, pattern)
    doubts = tuple(_list_doubts(manifest, outputs, missing))
    contested = float(bounds.contested[0]) if bounds else float(ours[0])
    return Estimate(
        probability=float(ours[0]),
        score=map_to_score(manifest.score_map, float(ours[0])),
        interval=_read_interval(bounds),
        confidence=0.0 if doubts else _measure_confidence(manifest.priority, bounds),
        contested_score=map_to_score(manifest.score_map, contested),
        doubts=doubts,
        worsening=_estimate_worsening(manifest.worsening, members, outputs, pattern, phq9_total),
    )


def _estimate_worsening(
    head: WorseningHead | None,
    members: Mapping[str, Numbers],
    outputs: Outputs,
    pattern: str,
    phq9_total: float,
) -> WorseningEstimate | None:
    if head is None:
        return None
    if phq9_total >= head.severe_from:
        probability = _estimate_severe(head, members)
        return WorseningEstimate(head.outcome, probability, None, False, True)
    ours = estimate_probabilities(head, members, pattern)
    interval = _read_interval(_bound(head, ours, members, outputs, pattern))
    is_likely = bool(ours[0] >= head.likely_above)
    return WorseningEstimate(head.outcome, float(ours[0]), interval, is_likely, False)


def _estimate_severe(head: WorseningHead, members: Mapping[str, Numbers]) -> float | None:
    if head.severe_calibration is None:
        return None
    stacked = to_probability(stack_log_odds(head.stacker, members))
    return float(head.severe_calibration.apply(stacked)[0])


def _bound(
    head: Head,
    ours: Numbers,
    members: Mapping[str, Numbers],
    outputs: Outputs,
    pattern: str,
) -> Bounds | None:
    if head.uncertainty is None:
        return None
    return find_bounds(head, head.uncertainty, ours, members, outputs.refits, pattern)


def _read_interval(bounds: Bounds | None) -> Interval | None:
    return None if bounds is None else Interval(float(bounds.low[0]), float(bounds.high[0]))


def _measure_confidence(head: Head, bounds: Bounds | None) -> float:
    if head.uncertainty is None or bounds is None:
        return 0.0
    return head.uncertainty.measure_confidence(float(bounds.width[0]))


def _list_doubts(
    manifest: ReleaseManifest, outputs: Outputs, missing: Collection[str]
) -> list[Doubt]:
    doubts = [Doubt.NOTHING_KNOWN] if len(missing) == len(DATA_TYPES) else []
    familiarity, unfamiliarity = manifest.familiarity, outputs.unfamiliarity
    if familiarity is not None and unfamiliarity is not None and unfamiliarity > familiarity.above:
        doubts.append(Doubt.UNFAMILIAR)
    return doubts
