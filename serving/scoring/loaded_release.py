"""A release in memory: its manifest and the members that score."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from mlruns_config.manifest import EMBEDDING, MemberPin, ReleaseManifest
from mlruns_config.uncertainty import REFITS_OUTPUT, UNFAMILIARITY_OUTPUT
from serving.errors import ScoringFailedError
from serving.scoring.estimate import Inputs
from serving.scoring.explainers import Explainer

OUTPUT_NAME = "probability"

#: float32 [n, features] or [n, weeks, channels].
Batch = NDArray[np.float32]
#: The weeks in a few numbers, float32 [1, size].
Embedding = NDArray[np.float32]


@dataclass(frozen=True)
class Member:
    """One model of a release, ready to score."""

    pin: MemberPin
    session: onnxruntime.InferenceSession
    explainer: Explainer | None
    refits: onnxruntime.InferenceSession | None = None
    #: From an embedding and the features to the probability; None without an embedding.
    head: onnxruntime.InferenceSession | None = None

    def predict(self, inputs: Inputs, embedding: Embedding | None = None) -> float:
        """Return the probability for one individual; raises ScoringFailedError.

        With an `embedding` of the weeks, the head alone is run.
        """
        if embedding is None or self.head is None:
            return float(self.predict_many(inputs)[0])
        given = {EMBEDDING: embedding, "features": inputs.vector}
        return float(self._predict(self.head, given)[0])

    @cached_property
    def embedding_of_nothing(self) -> Embedding:
        """The embedding where all weeks are missing, computed once for everyone."""
        unknown = {
            node.name: np.full((1, *node.shape[1:]), np.nan, np.float32)
            for node in self.session.get_inputs()
        }
        return run_graph(self.pin.name, self.session, EMBEDDING, unknown)

    def predict_many(self, inputs: Inputs) -> NDArray[np.float32]:
        """Return float32 [n] probabilities for n rows of inputs.

        Raises ScoringFailedError, also for what is no probability.
        """
        return self._predict(self.session, {name: inputs.pick(name) for name in self.pin.inputs})

    def _predict(
        self, session: onnxruntime.InferenceSession, given: Mapping[str, Batch]
    ) -> NDArray[np.float32]:
        try:
            (output,) = session.run([OUTPUT_NAME], dict(given))
        except Exception as error:  # onnxruntime's own errors share no base class
            raise ScoringFailedError(f"{self.pin.name} could not score") from error
        probabilities: NDArray[np.float32] = np.ravel(output)
        if not ((probabilities >= 0) & (probabilities <= 1)).all():
            raise ScoringFailedError(f"{self.pin.name} gave what is no probability")
        return probabilities

    def predict_refits(self, inputs: Inputs) -> NDArray[np.float64] | None:
        """Return the log-odds of the member's refits, float64 [1, refits]; None without any.

        Raises ScoringFailedError.
        """
        if self.refits is None:
            return None
        given: dict[str, Batch] = {self.pin.input: inputs.pick(self.pin.input)}
        return run_graph(self.pin.name, self.refits, REFITS_OUTPUT, given).astype(np.float64)


def run_graph(
    name: str, session: onnxruntime.InferenceSession, output: str, given: Mapping[str, Batch]
) -> NDArray[np.float32]:
    """Return a finite output of a graph; raises ScoringFailedError. Float32 [rows]."""
    try:
        (result,) = session.run([output], dict(given))
    except Exception as error:  # onnxruntime's own errors share no base class
        raise ScoringFailedError(f"{name} could not give its {output}") from error
    if not np.isfinite(result).all():
        raise ScoringFailedError(f"{name} gave a {output} that is no number")
    values: NDArray[np.float32] = result
    return values


@dataclass(frozen=True)
class Release:
    """A verified release; the stackers weigh some of its members, all of them are scored.

    `forest` says how unlike the training data a case is; it is no member that estimates.
    """

    version: int
    manifest: ReleaseManifest
    members: Mapping[str, Member]
    loaded_at: datetime
    forest: onnxruntime.InferenceSession | None = None

    def measure_unfamiliarity(self, inputs: Inputs) -> float | None:
        """Return the forest's anomaly score, None without a forest; raises ScoringFailedError."""
        if self.forest is None:
            return None
        given = {"features": inputs.vector}
        return float(run_graph("forest", self.forest, UNFAMILIARITY_OUTPUT, given)[0])
