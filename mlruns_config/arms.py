"""The two arms of a gradual rollout: which release answers for which individual.

Read from the tags of the registered version; needs no MLflow, so that serving can ask it for
every screening. Who sees the candidate is decided by a hash of the pseudonym: the same
individual always gets the same release, and raising the share only adds individuals.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mlruns_config.manifest import RELEASE_MODEL

CANDIDATE_ALIAS = "candidate"
MODE_TAG = "rollout.mode"
SHARE_TAG = "rollout.share"

Mode = Literal["shadow", "traffic"]
Arm = Literal["production", "candidate"]


@dataclass(frozen=True)
class Rollout:
    """A candidate in a rollout: `share` is 0 in shadow."""

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


def read_tags(version: int, tags: Mapping[str, str]) -> Rollout:
    """Return the rollout that a candidate version's tags describe.

    Anything but a complete `traffic` state is read as shadow, which answers no request. Raises
    ValueError when the share is not a number from 0 to 1.
    """
    if tags.get(MODE_TAG) != "traffic":
        return Rollout(version, "shadow", 0.0)
    return Rollout(version, "traffic", _read_share(version, tags.get(SHARE_TAG, "0")))


def _read_share(version: int, text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ValueError(f"{RELEASE_MODEL} {version}: tag {SHARE_TAG} is no share from 0 to 1")
    return share
