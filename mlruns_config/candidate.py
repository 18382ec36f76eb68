"""The candidate of a gradual rollout, as it is kept with its registered version.

State is the alias `candidate` and the tags `rollout.*`. Who sees the candidate is decided by
a hash of the pseudonym: the same individual always gets the same release, and raising the
share only adds individuals.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from mlruns_config.release import RELEASE_MODEL

CANDIDATE_ALIAS = "candidate"
MODE_TAG = "rollout.mode"
SHARE_TAG = "rollout.share"
#: How MLflow says that a model or version (the first) or an alias (the second) is not there.
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")

Mode = Literal["shadow", "traffic"]
Arm = Literal["production", "candidate"]


@dataclass(frozen=True)
class Rollout:
    """A candidate under way: `share` is 0 in shadow."""

    version: int
    mode: Mode
    share: float

    def choose_arm(self, anonymized_id: str) -> Arm:
        """Return the release that answers for an individual; stable, and monotone in `share`."""
        digest = hashlib.sha256(f"{self.version}:{anonymized_id}".encode()).digest()
        position = int.from_bytes(digest[:8]) / 2**64
        return "candidate" if position < self.share else "production"

    def describe(self) -> str:
        return "shadow" if self.mode == "shadow" else f"traffic {self.share:g}"


def find_by_alias(client: MlflowClient, model: str, alias: str) -> ModelVersion | None:
    """Return the version with an alias, or None; a registry that is away raises."""
    try:
        return client.get_model_version_by_alias(model, alias)
    except MlflowException as error:
        if error.error_code not in ABSENT:
            raise
        return None


def read_candidate(client: MlflowClient) -> Rollout | None:
    """Return the rollout that is under way, or None.

    Anything but a complete `traffic` state is read as shadow, which answers nobody. Raises
    ValueError when the share is not a number from 0 to 1.
    """
    found = find_by_alias(client, RELEASE_MODEL, CANDIDATE_ALIAS)
    if found is None:
        return None
    version = int(found.version)
    if found.tags.get(MODE_TAG) != "traffic":
        return Rollout(version, "shadow", 0.0)
    return Rollout(version, "traffic", _read_share(version, found.tags.get(SHARE_TAG, "0")))


def write_candidate(client: MlflowClient, rollout: Rollout) -> None:
    """Keep a rollout with its version. The alias comes last: until then nothing has changed."""
    version = str(rollout.version)
    for tag, value in ((SHARE_TAG, str(rollout.share)), (MODE_TAG, rollout.mode)):
        client.set_model_version_tag(RELEASE_MODEL, version, tag, value)
    client.set_registered_model_alias(RELEASE_MODEL, CANDIDATE_ALIAS, version)


def clear_candidate(client: MlflowClient, version: int) -> None:
    """Remove what says that a version is rolled out.

    The mode goes first (the candidate then answers nobody), the alias last: broken off in
    between, a second attempt still finds what to remove.
    """
    for tag in (MODE_TAG, SHARE_TAG):
        client.delete_model_version_tag(RELEASE_MODEL, str(version), tag)
    client.delete_registered_model_alias(RELEASE_MODEL, CANDIDATE_ALIAS)


def _read_share(version: int, text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ValueError(f"{RELEASE_MODEL} {version}: tag {SHARE_TAG} is no share from 0 to 1")
    return share
