"""Discrimination and calibration of a release by delayed outcomes.

Once outcomes are there, discrimination and calibration in use are compared with what the release
showed at training, overall and by group, and the groups themselves with those of the training.
With too few labels nothing is reported. ADR 0025.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

#: Fewer labelled screenings, or fewer outcomes among them, say too little: groups are judged by
#: the same numbers at training.
MIN_LABELS = 200
MIN_OUTCOMES = 40
#: Observed over expected outcomes; an interval wholly outside of it is drift.
CALIBRATION_RANGE = (0.8, 1.25)
#: A group's share of those screened has drifted by at least this, and beyond chance.
MIX_CHANGE = 0.1
MIX_Z = 2.58


@dataclass(frozen=True)
class Performance:
    """How a release did on labelled screenings; the intervals are of 95 %, by individual."""

    auroc: float
    auroc_low: float
    auroc_high: float
    #: Share of outcomes, and the mean probability: their ratio is 1 where it is calibrated.
    observed: float
    expected: float
    ratio_low: float
    ratio_high: float
    calibration_slope: float

    @property
    def ratio(self) -> float:
        return self.observed / self.expected if self.expected else math.nan

    @property
    def calibration_drifted(self) -> bool:
        low, high = CALIBRATION_RANGE
        return self.ratio_high < low or self.ratio_low > high


@dataclass(frozen=True)
class OutcomeDrift:
    """What labelled screenings of a release say; without `performance` there are too few.

    `auroc_then` and `auroc_low_then` are of the held-out individuals at training.
    """

    labels: int
    outcomes: int
    performance: Performance | None
    auroc_then: float | None
    auroc_low_then: float | None

    @property
    def discrimination_drifted(self) -> bool | None:
        """Whether the whole interval now lies below that of the training; None: not known."""
        if self.performance is None or self.auroc_low_then is None:
            return None
        return self.performance.auroc_high < self.auroc_low_then

    @property
    def calibration_drifted(self) -> bool | None:
        return None if self.performance is None else self.performance.calibration_drifted

    @property
    def has_drifted(self) -> bool:
        return bool(self.discrimination_drifted or self.calibration_drifted)

    def describe(self) -> str:
        """Return one sentence, also of why there is nothing to say."""
        performance = self.performance
        if performance is None:
            return (
                f"{self.labels} labelled screenings with {self.outcomes} outcomes are too few to "
                f"judge discrimination or calibration ({MIN_LABELS} and {MIN_OUTCOMES} are "
                "needed)"
            )
        then = "" if self.auroc_then is None else f", {self.auroc_then:.3f} at training"
        return (
            f"AUROC {performance.auroc:.3f} ({performance.auroc_low:.3f} to "
            f"{performance.auroc_high:.3f}){then}; {performance.ratio:.2f} times as many outcomes "
            f"as expected ({performance.ratio_low:.2f} to {performance.ratio_high:.2f}), on "
            f"{self.labels} labelled screenings"
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "labels": self.labels,
            "outcomes": self.outcomes,
            "is_known": self.performance is not None,
            "auroc_at_training": self.auroc_then,
            "discrimination_drifted": self.discrimination_drifted,
            "calibration_drifted": self.calibration_drifted,
            "says": self.describe(),
            **describe_performance(self.performance),
        }


@dataclass(frozen=True)
class GroupDrift:
    """One group: its share of those screened, and how the release did on it where known."""

    attribute: str
    group: str
    share: float
    #: Of the labelled rows of the training; None where the release came without them.
    share_then: float | None
    rows: int
    labels: int
    outcomes: int
    performance: Performance | None

    @property
    def mix_drifted(self) -> bool:
        then = self.share_then
        if then is None or self.rows == 0:
            return False
        spread = math.sqrt(max(then * (1 - then), 1 / self.rows) / self.rows)
        change = abs(self.share - then)
        return change >= MIX_CHANGE and change / spread >= MIX_Z

    @property
    def calibration_drifted(self) -> bool | None:
        return None if self.performance is None else self.performance.calibration_drifted

    def to_dict(self) -> dict[str, Any]:
        return {
            "attribute": self.attribute,
            "group": self.group,
            "share": self.share,
            "share_at_training": self.share_then,
            "mix_drifted": self.mix_drifted,
            "labels": self.labels,
            "outcomes": self.outcomes,
            "calibration_drifted": self.calibration_drifted,
            **describe_performance(self.performance),
        }


def describe_performance(performance: Performance | None) -> dict[str, float]:
    return {} if performance is None else asdict(performance) | {"ratio": performance.ratio}


def is_enough(labels: int, outcomes: int) -> bool:
    """Return True if there are labels and outcomes enough to measure by."""
    return labels >= MIN_LABELS and min(outcomes, labels - outcomes) >= MIN_OUTCOMES
