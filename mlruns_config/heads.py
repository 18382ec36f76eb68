"""From members' probabilities to what a release states of an outcome: weights, maps, interval."""

from functools import cached_property
from itertools import pairwise
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from mlruns_config.manifest_part import ManifestPart, Probability
from mlruns_config.uncertainty import RefitInterval

#: float64 [n].
Numbers = NDArray[np.float64]


class Stacker(ManifestPart):
    """logit(p) = intercept + sum of coefficient * logit(member probability).

    A member without a coefficient did not earn its place and has weight zero.
    """

    intercept: float
    coefficients: dict[str, float]


class Calibration(ManifestPart):
    """Piecewise linear, monotone map from stacked to calibrated probability."""

    kind: Literal["identity", "platt", "beta", "isotonic"]
    inputs: list[float]
    outputs: list[Probability]

    @model_validator(mode="after")
    def _validate_monotone(self) -> Self:
        if len(self.inputs) != len(self.outputs) or len(self.inputs) < 2:
            raise ValueError("calibration needs as many inputs as outputs, at least two")
        if sorted(self.inputs) != self.inputs or sorted(self.outputs) != self.outputs:
            raise ValueError("calibration must be monotone")
        return self

    @cached_property
    def _knots(self) -> tuple[Numbers, Numbers]:
        # NumPy would turn the lists into arrays at each call.
        return np.array(self.inputs), np.array(self.outputs)

    def apply(self, stacked: Numbers) -> Numbers:
        """Return the calibrated probabilities of stacked ones, float64 of the same shape."""
        return np.asarray(np.interp(stacked, *self._knots))


class ScoreMap(ManifestPart):
    """Monotone piecewise linear map from calibrated probability to the 0-100 score.

    `scores` are the named edges 0, 25, 50, 75, 100; `operating_points` says what each
    inner edge was chosen for.
    """

    probabilities: list[Probability]
    scores: list[Annotated[float, Field(ge=0, le=100)]]
    operating_points: dict[str, str]

    @model_validator(mode="after")
    def _validate_strictly_monotone(self) -> Self:
        pairs = list(zip(self.probabilities, self.scores, strict=True))
        if pairs[0] != (0, 0) or pairs[-1] != (1, 100):
            raise ValueError("the score map must run from (0, 0) to (1, 100)")
        if any(a[0] >= b[0] or a[1] >= b[1] for a, b in pairwise(pairs)):
            raise ValueError("the score map must be strictly increasing")
        return self

    @cached_property
    def _knots(self) -> tuple[Numbers, Numbers]:
        return np.array(self.probabilities), np.array(self.scores)

    def apply(self, probabilities: Numbers) -> Numbers:
        """Return the scores of calibrated probabilities, not rounded, float64 of the same shape."""
        return np.asarray(np.interp(probabilities, *self._knots))


class Head(ManifestPart):
    """What a release says of one outcome: weights, calibration by missing pattern, uncertainty.

    `calibration` is that of complete data, `calibrations` those by name of the missing pattern
    (`mlruns_config.missing`). `uncertainty` is None in releases of schema 3.
    """

    #: Key of the outcome.
    outcome: str
    stacker: Stacker
    calibration: Calibration
    calibrations: dict[str, Calibration] = Field(default_factory=dict)
    uncertainty: RefitInterval | None = None

    def find_calibration(self, pattern: str) -> Calibration:
        """Return the map of a missing pattern; that of complete data where it has none."""
        return self.calibrations.get(pattern, self.calibration)


class WorseningHead(Head):
    """The outcome beside the priority's, which finds people who are not severely ill yet.

    It is learnt from index dates below `severe_from` points of PHQ-9, where a further rise is
    possible: there its estimate rises with symptoms, and from `likely_above` on a person is
    likely to worsen. From `severe_from` on severity itself is the message, the probability
    comes from `severe_calibration`, and the severity rules queue.
    """

    #: Names of its members, weighed or not.
    members: list[str]
    likely_above: Probability
    severe_from: Annotated[float, Field(gt=0)]
    severe_calibration: Calibration | None = None

    def estimates(self, member: str) -> bool:
        return member in self.members
