"""Gradual rollout of a candidate release: shadow, then a share of individuals, then Production.

The state is kept with the registered version (alias `candidate`, tags `rollout.*`), each step
in the promotion ledger. Who sees the candidate is decided by a hash of the pseudonym: the same
individual always gets the same release, and raising the share only adds individuals.
"""

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mlflow.exceptions import MlflowException
from pydantic import BaseModel, ConfigDict

from mlruns_config.ledger import LedgerEntry, append_to_ledger
from mlruns_config.registry import PromotionRefusedError, Registry
from mlruns_config.release import RELEASE_MODEL

CANDIDATE_ALIAS = "candidate"
MODE_TAG = "rollout.mode"
SHARE_TAG = "rollout.share"
GUARDRAILS_FILE = Path(__file__).with_name("guardrails.toml")

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


def find_rollout(registry: Registry) -> Rollout | None:
    """Return the rollout that is under way, or None."""
    try:
        found = registry.client.get_model_version_by_alias(RELEASE_MODEL, CANDIDATE_ALIAS)
    except MlflowException:
        return None
    mode: Mode = "traffic" if found.tags.get(MODE_TAG) == "traffic" else "shadow"
    return Rollout(int(found.version), mode, float(found.tags.get(SHARE_TAG, 0)))


def start_shadow(registry: Registry, version: int, actor: str, reason: str) -> Rollout:
    """Let a version in Staging score beside Production without answering anyone."""
    stage = registry.client.get_model_version(RELEASE_MODEL, str(version)).current_stage
    if stage != "Staging":
        _record(registry, version, str(stage), "shadow", actor, reason, "refused")
        raise PromotionRefusedError(f"version {version} is in {stage}; a candidate is in Staging")
    _write(registry, Rollout(version, "shadow", 0.0))
    registry.client.set_registered_model_alias(RELEASE_MODEL, CANDIDATE_ALIAS, str(version))
    _record(registry, version, "Staging", "shadow", actor, reason)
    return Rollout(version, "shadow", 0.0)


def set_traffic_share(registry: Registry, share: float, actor: str, reason: str) -> Rollout:
    """Let the candidate answer for a share (0 to 1) of individuals."""
    current = _require_rollout(registry)
    if not 0 < share <= 1:
        raise PromotionRefusedError(f"a traffic share lies above 0 and up to 1, not {share:g}")
    changed = Rollout(current.version, "traffic", share)
    _write(registry, changed)
    step = f"traffic {share:g}"
    _record(registry, current.version, f"{current.mode} {current.share:g}", step, actor, reason)
    return changed


def stop_rollout(registry: Registry, actor: str, reason: str) -> int:
    """End the rollout: Production answers everyone again. Return the version that stops."""
    current = _require_rollout(registry)
    registry.client.delete_registered_model_alias(RELEASE_MODEL, CANDIDATE_ALIAS)
    for tag in (MODE_TAG, SHARE_TAG):
        registry.client.delete_model_version_tag(RELEASE_MODEL, str(current.version), tag)
    came_from = f"{current.mode} {current.share:g}"
    _record(registry, current.version, came_from, "stopped", actor, reason)
    return current.version


class Guardrail(BaseModel):
    """A limit on what a candidate does in use, with the reason for its number."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    measure: str
    maximum: float
    #: Fewer screenings than this prove nothing yet.
    after: int
    reason: str


@dataclass(frozen=True)
class Observed:
    """What was seen of a candidate: screenings, and measures by name."""

    screenings: int
    measures: dict[str, float]


def load_guardrails(path: Path = GUARDRAILS_FILE) -> tuple[Guardrail, ...]:
    entries = tomllib.loads(path.read_text()).get("guardrail", [])
    if not entries:
        raise ValueError(f"{path.name} names no guardrail: nothing would stop a candidate")
    return tuple(Guardrail(**entry) for entry in entries)


def find_breaches(guardrails: tuple[Guardrail, ...], observed: Observed) -> list[str]:
    """Return why a candidate must be stopped; a measure that is missing is a breach."""
    breaches = []
    for guardrail in guardrails:
        if observed.screenings < guardrail.after:
            continue
        value = observed.measures.get(guardrail.measure)
        if value is None:
            breaches.append(f"{guardrail.measure} is not measured")
        elif not value <= guardrail.maximum:
            breaches.append(f"{guardrail.measure} is {value:.3g}, above {guardrail.maximum:g}")
    return breaches


def _require_rollout(registry: Registry) -> Rollout:
    current = find_rollout(registry)
    if current is None:
        raise PromotionRefusedError("no candidate is being rolled out")
    return current


def _write(registry: Registry, rollout: Rollout) -> None:
    for tag, value in ((MODE_TAG, rollout.mode), (SHARE_TAG, f"{rollout.share:g}")):
        registry.client.set_model_version_tag(RELEASE_MODEL, str(rollout.version), tag, value)


def _record(
    registry: Registry,
    version: int,
    from_stage: str,
    to_stage: str,
    actor: str,
    reason: str,
    result: Literal["promoted", "refused"] = "promoted",
) -> None:
    entry = LedgerEntry(RELEASE_MODEL, version, from_stage, to_stage, actor, reason, result)
    with registry.engine.begin() as connection:
        append_to_ledger(connection, entry)
