"""A release in memory: its manifest and the members that score."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from mlruns_config.manifest import MemberPin, ReleaseManifest
from serving.errors import ScoringFailedError
from serving.scoring.estimate import Inputs
from serving.scoring.explainers import Explainer

OUTPUT_NAME = "probability"

#: float32 [n, features] or [n, weeks, channels].
Batch = NDArray[np.float32]


@dataclass(frozen=True)
class Member:
    """One model of a release, ready to score."""

    pin: MemberPin
    session: onnxruntime.InferenceSession
    explainer: Explainer | None

    def predict(self, inputs: Inputs) -> float:
        """Return the probability for one individual; raises ScoringFailedError."""
        return float(self.predict_many(inputs.pick(self.pin.input))[0])

    def predict_many(self, given: Batch) -> NDArray[np.float32]:
        """Return float32 [n] probabilities for n rows of this member's input.

        Raises ScoringFailedError, also for what is no probability.
        """
        try:
            (output,) = self.session.run([OUTPUT_NAME], {self.pin.input: given})
        except Exception as error:  # onnxruntime's own errors share no base class
            raise ScoringFailedError(f"{self.pin.name} could not score") from error
        probabilities: NDArray[np.float32] = np.ravel(output)
        if not ((probabilities >= 0) & (probabilities <= 1)).all():
            raise ScoringFailedError(f"{self.pin.name} gave what is no probability")
        return probabilities


@dataclass(frozen=True)
class Release:
    """A verified release; the stacker weighs some of its members, all of them are scored."""

    version: int
    manifest: ReleaseManifest
    members: Mapping[str, Member]
    loaded_at: datetime
