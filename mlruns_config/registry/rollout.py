"""Gradual rollout of a candidate release: shadow, then a share of individuals, then Production.

The state is kept with the registered version (`candidate.py`), each step in the promotion
ledger. A candidate is in Staging; it answers individuals only through the same gates as
Production, or a share of 1 would be a way around them.
"""

from dataclasses import replace
from typing import NoReturn

from mlruns_config.arms import Rollout
from mlruns_config.attempt import Attempt
from mlruns_config.candidate import clear_candidate, read_candidate, write_candidate
from mlruns_config.registry.transitions import Registry, begin_attempt, require_passed_gates


def find_rollout(registry: Registry) -> Rollout | None:
    """Return the running rollout, or None."""
    return read_candidate(registry.client)


def start_shadow(registry: Registry, version: int, actor: str, reason: str) -> Rollout:
    """Let a version in Staging score beside Production without answering anyone.

    Raises PromotionRefusedError, after writing the ledger, when the version is not in Staging
    or another one is being rolled out; PromotionFailedError when MLflow does not do it.
    """
    attempt = begin_attempt(registry, version, "shadow", actor, reason)
    current = find_rollout(registry)
    _require_staging(attempt)
    if current is not None and current.version != version:
        attempt.refuse(f"version {current.version} is being rolled out; stop it first")
    started = Rollout(version, "shadow", 0.0)
    _continue_from(attempt, current).carry_out(lambda: write_candidate(registry.client, started))
    return started


def set_traffic_share(registry: Registry, share: float, actor: str, reason: str) -> Rollout:
    """Let the candidate answer for a share (above 0, up to 1) of individuals.

    Raises as `start_shadow` does; also when no candidate is rolled out or a gate fails.
    """
    step = f"traffic {share:g}"
    current = find_rollout(registry)
    if current is None:
        _refuse_without_candidate(registry, step, actor, reason)
    attempt = begin_attempt(registry, current.version, step, actor, reason)
    if not 0 < share <= 1:
        attempt.refuse(f"a traffic share lies above 0 and up to 1, not {share:g}")
    _require_staging(attempt)
    note = require_passed_gates(registry, attempt)
    changed = Rollout(current.version, "traffic", share)
    attempt = _continue_from(attempt, current)
    attempt.carry_out(lambda: write_candidate(registry.client, changed), note)
    return changed


def stop_rollout(registry: Registry, actor: str, reason: str) -> int:
    """End the rollout: Production answers everyone again. Return the version that stops."""
    current = find_rollout(registry)
    if current is None:
        _refuse_without_candidate(registry, "stopped", actor, reason)
    version = current.version
    attempt = Attempt(registry.engine, version, current.describe(), "stopped", actor, reason)
    attempt.carry_out(lambda: clear_candidate(registry.client, version))
    return version


def _require_staging(attempt: Attempt) -> None:
    if attempt.from_stage != "Staging":
        stage = attempt.from_stage
        attempt.refuse(f"version {attempt.version} is in {stage}; a candidate is in Staging")


def _continue_from(attempt: Attempt, current: Rollout | None) -> Attempt:
    return attempt if current is None else replace(attempt, from_stage=current.describe())


def _refuse_without_candidate(registry: Registry, step: str, actor: str, reason: str) -> NoReturn:
    attempt = Attempt(registry.engine, 0, "unknown", step, actor, reason)
    attempt.refuse("no candidate is being rolled out")
