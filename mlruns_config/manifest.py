"""The manifest of a release: everything serving needs to answer, pinned and hashed.

A release (`mhras-risk`) is one registered version whose artifacts are this manifest and
nothing executable. Members are pinned by numeric version; every artifact is pinned by
SHA-256, so what is loaded is what was evaluated.
"""

import hashlib
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from feature_repo.consent_terms import DataType
from feature_repo.outcomes import ADVERSE_COURSE
from feature_repo.stored_views import StoredView
from mlruns_config.heads import Calibration, Head, ScoreMap, Stacker, WorseningHead
from mlruns_config.manifest_part import ManifestPart, Probability
from mlruns_config.missing import PARTS, belongs_to
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
    calibrations: dict[str, Calibration] = Field(default_factory=dict)
    uncertainty: RefitInterval | None = None
    #: Of schema 3: an interval about twenty people alike, which is not read any more.
    conformal: dict[str, Any] | None = None
    score_map: ScoreMap
    worsening: WorseningHead | None = None
    familiarity: Familiarity | None = None
    levers: list[Lever] = Field(default_factory=list)
    surrogate: Surrogate | None = None
    #: Delta versions and digests, git commit, flow run, suite result, definition hash.
    lineage: dict[str, Any]

    @cached_property
    def columns(self) -> dict[str, int]:
        """Position of each feature by name."""
        return {feature.name: n for n, feature in enumerate(self.features)}

    @cached_property
    def columns_by_part(self) -> dict[str, NDArray[np.int64]]:
        """Positions of the features of each part of what is known (`mlruns_config.missing`)."""
        return {
            part: np.flatnonzero(
                [belongs_to(part, feature.name, feature.data_type) for feature in self.features]
            )
            for part in PARTS
        }

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
