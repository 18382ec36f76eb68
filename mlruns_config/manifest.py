"""The manifest of a release: everything serving needs to answer, pinned and hashed.

A release (`mhras-risk`) is one registered version whose artifacts are this manifest and
nothing executable. Members are pinned by numeric version; every artifact is pinned by
SHA-256, so what is loaded is what was evaluated.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from feature_repo.answer_features import CURRENT_ANSWERS
from feature_repo.consent_terms import DataType
from feature_repo.outcomes import ADVERSE_COURSE
from feature_repo.stored_views import StoredView
from mlruns_config.missing import HISTORY, PARTS
from mlruns_config.uncertainty import REFITS_FILE, RefitInterval

RELEASE_MODEL = "mhras-risk"
MEMBER_MODELS = {
    "logistic_regression": "mhras-logistic-regression",
    "lightgbm": "mhras-lightgbm",
    "rnn": "mhras-rnn",
    "tft": "mhras-tft",
    "isolation_forest": "mhras-isolation-forest",
}
#: Artifact of a member's version: its head alone, from EMBEDDING and features to the probability.
HEAD_FILE = "head.onnx"
#: Output of a member's graph, and input of its head: the weeks in a few numbers, float32 [n, size].
EMBEDDING = "embedding"
#: Path of the manifest inside the artifacts of a release version.
MANIFEST_FILE = "release.json"
#: Beside it, the manifest of the release that was evaluated: it has not seen the held-out people.
EVALUATED_FILE = "evaluated.json"
#: Tag of a release version: SHA-256 of its manifest as it was registered.
MANIFEST_HASH_TAG = "manifest.sha256"
#: Tag of a release version: whose data it was trained on, `simulated` or `people`.
ORIGIN_TAG = "data.origin"
MANIFEST_SCHEMA_VERSION: Literal[4] = 4

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Probability = Annotated[float, Field(ge=0, le=1)]


class ManifestPart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy whose cached properties follow from its own fields, not the original's."""
        copied = super().model_copy(update=update, deep=deep)
        for name in copied.__dict__.keys() - type(self).model_fields.keys():
            del copied.__dict__[name]
        return copied


class FeatureDescription(ManifestPart):
    """One column of the models' input, in plain words.

    `usual_low` and `usual_high` are the 10th and 90th percentile of the training
    individuals; `data_type` is the consent the value needs (None: sent with the request).
    """

    name: str
    label: str
    unit: str
    data_type: DataType | None
    usual_low: float | None
    usual_high: float | None


class ChannelDescription(ManifestPart):
    """One channel of the weekly sequence, in plain words, with the consent it needs."""

    name: str
    label: str
    unit: str
    data_type: DataType


class SequenceDescription(ManifestPart):
    """The weekly sequence: float32 [n, weeks, channels], oldest week first, NaN if unknown."""

    weeks: Annotated[int, Field(gt=0)]
    channels: list[ChannelDescription]


class MemberPin(ManifestPart):
    """A member by numeric version, with the hash of each of its artifacts.

    `input` is the name of its graph's input: the features or the weekly sequence. A member with a
    head reads both: its graph gives an embedding of the weeks beside the probability, and the
    head the same probability of that embedding and the features.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
    registered_model: Annotated[str, Field(pattern=r"^mhras-[a-z0-9-]{1,60}$")]
    version: Annotated[int, Field(ge=1)]
    run_id: str
    input: Literal["features", "sequence"] = "features"
    #: Artifact path inside the member's version -> SHA-256.
    artifacts: dict[str, Sha256]

    @property
    def has_refits(self) -> bool:
        return REFITS_FILE in self.artifacts

    @property
    def has_head(self) -> bool:
        return HEAD_FILE in self.artifacts

    @property
    def inputs(self) -> list[str]:
        """Return the names of its graph's inputs."""
        return [self.input, "features"] if self.has_head else [self.input]


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
    def knots(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return inputs and outputs as arrays: NumPy would turn the lists into some each time."""
        return np.array(self.inputs), np.array(self.outputs)

    def apply(self, stacked: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the calibrated probabilities of stacked ones, float64 of the same shape."""
        return np.asarray(np.interp(stacked, *self.knots))


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
    def knots(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return probabilities and scores as arrays."""
        return np.array(self.probabilities), np.array(self.scores)


class Head(ManifestPart):
    """What a release says of one outcome: weights, calibration by missing pattern, uncertainty.

    `calibration` is that of complete data, `calibrations` those by name of the missing pattern
    (`mlruns_config.missing`). `uncertainty` is None in releases of schema 3.
    """

    #: Key of the outcome.
    outcome: str
    stacker: Stacker
    calibration: Calibration
    calibrations: dict[str, Calibration] = {}
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


class Familiarity(ManifestPart):
    """How unlike the training data a case is, and from where on that is said.

    The graph of `member` gives 0.5 for the usual and rises towards 1; `share_above` of the
    people learnt from lie above `above`. It reads nothing of today's answers, so that a worse
    answer changes nothing.
    """

    member: str
    above: Annotated[float, Field(gt=0, lt=1)]
    share_above: Probability


class Lever(ManifestPart):
    """Something a person can change: the columns that move together, first the one to tell.

    `low` and `high` bound what is tried: the 10th and 90th percentile of training individuals.
    A weekly channel of the same name moves with it.
    """

    name: str
    label: str
    unit: str
    columns: Annotated[list[str], Field(min_length=1)]
    low: float
    high: float


#: The largest float32: a threshold that no value is above, so that only the missing are.
BEYOND_ALL = 3.4028234663852886e38


class Condition(ManifestPart):
    """`feature` above a threshold, or at most at it; `if_missing` tells which side NaN takes.

    With the threshold BEYOND_ALL it asks whether the feature is known at all.
    """

    feature: str
    threshold: float
    above: bool
    if_missing: bool


class Rule(ManifestPart):
    """A leaf of the surrogate: its conditions, mean probability and share of training rows."""

    conditions: list[Condition]
    probability: Probability
    share: Probability


class Surrogate(ManifestPart):
    """The release in a few rules, exactly one of which holds for anybody.

    `fidelity` is the share of the release's variance that they tell (R squared, on people
    neither was fitted on).
    """

    rules: Annotated[list[Rule], Field(min_length=1)]
    fidelity: float


class ReleaseManifest(ManifestPart):
    #: 3: without the parts that say how sure a release is of one person, and the second head.
    schema_version: Literal[3, 4] = MANIFEST_SCHEMA_VERSION
    #: Key of the outcome that the score and its probability are of.
    outcome: str = ADVERSE_COURSE.key
    created_at: datetime
    training_run_id: str
    feature_service: str
    #: The input columns, in order. A member takes float32 [n, len(features)], NaN where
    #: missing, as ONNX input "features" (or the weekly sequence as "sequence") and gives
    #: float32 [n] "probability".
    features: list[FeatureDescription]
    sequence: SequenceDescription | None = None
    #: Where the stored inputs lie in the online store, and until when they speak.
    stored_views: list[StoredView]
    members: list[MemberPin]
    stacker: Stacker
    calibration: Calibration
    #: By name of the missing pattern (`mlruns_config.missing`); `calibration` is that of "none".
    calibrations: dict[str, Calibration] = {}
    uncertainty: RefitInterval | None = None
    #: Of schema 3: an interval about twenty people alike, which is not read any more.
    conformal: dict[str, Any] | None = None
    score_map: ScoreMap
    worsening: WorseningHead | None = None
    familiarity: Familiarity | None = None
    levers: list[Lever] = []
    surrogate: Surrogate | None = None
    #: Delta versions and digests, git commit, flow run, suite result, definition hash.
    lineage: dict[str, Any]

    @cached_property
    def columns(self) -> dict[str, int]:
        """Position of each feature by name."""
        return {feature.name: n for n, feature in enumerate(self.features)}

    @cached_property
    def columns_by_type(self) -> dict[str, NDArray[np.int64]]:
        """Positions of the features of each data type.

        Under HISTORY those of the survey that today's answers alone do not make known.
        """
        positions: dict[str, list[int]] = {part: [] for part in PARTS}
        for column, feature in enumerate(self.features):
            if feature.data_type is not None:
                positions[feature.data_type].append(column)
            if feature.data_type == "survey" and feature.name not in CURRENT_ANSWERS:
                positions[HISTORY].append(column)
        return {part: np.array(columns, np.int64) for part, columns in positions.items()}

    @property
    def is_simulated(self) -> bool:
        """Whether the people it was trained on are simulated."""
        return bool(self.lineage.get("simulated"))

    @cached_property
    def priority(self) -> Head:
        """Return the head of the outcome that the score is of."""
        return Head(
            outcome=self.outcome,
            stacker=self.stacker,
            calibration=self.calibration,
            calibrations=self.calibrations,
            uncertainty=self.uncertainty,
        )

    @cached_property
    def heads(self) -> tuple[Head, ...]:
        return (self.priority, self.worsening) if self.worsening else (self.priority,)

    def name_outcome(self, member: str) -> str:
        """Return the key of the outcome that a member estimates."""
        beside = self.worsening
        return beside.outcome if beside and beside.estimates(member) else self.outcome

    def find_weight(self, member: str) -> float:
        """Return a member's weight in the head it belongs to; 0 where it only watches."""
        return next(
            (
                head.stacker.coefficients[member]
                for head in self.heads
                if member in head.stacker.coefficients
            ),
            0.0,
        )

    def find_column(self, feature: str) -> int:
        return self.columns[feature]

    def find_channel(self, name: str) -> int | None:
        """Return the position of a weekly channel, None where there is no such one."""
        channels = self.sequence.channels if self.sequence else []
        return next((n for n, channel in enumerate(channels) if channel.name == name), None)

    @model_validator(mode="after")
    def _explain_with_known_features(self) -> Self:
        named = {column for lever in self.levers for column in lever.columns}
        rules = self.surrogate.rules if self.surrogate else []
        named |= {condition.feature for rule in rules for condition in rule.conditions}
        if unknown := named - set(self.columns):
            raise ValueError(f"explanations name unknown features: {sorted(unknown)}")
        return self

    @model_validator(mode="after")
    def _describe_every_input(self) -> Self:
        if self.sequence is None and any(member.input == "sequence" for member in self.members):
            raise ValueError("a member takes the weekly sequence, which is not described")
        return self

    @model_validator(mode="after")
    def _know_every_weighted_member(self) -> Self:
        weighed = {name for head in self.heads for name in head.stacker.coefficients}
        if self.familiarity is not None:
            weighed.add(self.familiarity.member)
        unknown = weighed - {member.name for member in self.members}
        if unknown:
            raise ValueError(f"members are used that are not pinned: {sorted(unknown)}")
        return self

    @model_validator(mode="after")
    def _refit_what_is_uncertain(self) -> Self:
        refitted = {member.name for member in self.members if member.has_refits}
        for head in self.heads:
            if head.uncertainty and not refitted & set(head.stacker.coefficients):
                raise ValueError(f"{head.outcome} has an interval, but no weighed member refits")
        return self


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hex characters."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
