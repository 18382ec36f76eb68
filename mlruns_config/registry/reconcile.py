"""Finds and repairs disagreements of MLflow and the promotion ledger about Production.

A transition moves MLflow first and commits its ledger row last. If PostgreSQL goes away in
between, MLflow has a Production version that the ledger does not know; if MLflow goes away,
stage and alias can differ.
"""

from dataclasses import dataclass

from mlruns_config.attempt import Attempt
from mlruns_config.manifest import RELEASE_MODEL
from mlruns_config.registry.transitions import (
    Registry,
    begin_attempt,
    find_production,
    move_alias,
    replay_productions,
    require_passed_gates,
)


@dataclass(frozen=True)
class Productions:
    """The Production version by MLflow's stage, by its alias, and by the ledger."""

    staged: int | None
    aliased: int | None
    recorded: int | None

    @property
    def agree(self) -> bool:
        return self.staged == self.aliased == self.recorded

    def describe(self) -> str:
        versions = {
            "MLflow's stage": self.staged,
            "its alias": self.aliased,
            "the ledger": self.recorded,
        }
        return ", ".join(f"{who}: {version or 'none'}" for who, version in versions.items())


def compare_productions(registry: Registry) -> Productions:
    """Return the Production version by source: stage, alias, ledger."""
    model_versions = registry.client.search_model_versions(f"name='{RELEASE_MODEL}'")
    staged = [
        int(model_version.version)
        for model_version in model_versions
        if model_version.current_stage == "Production"
    ]
    recorded = replay_productions(registry)
    return Productions(
        # The newest, should a broken transition have left two.
        staged=max(staged, default=None),
        aliased=find_production(registry),
        recorded=recorded[-1] if recorded else None,
    )


def reconcile(registry: Registry, actor: str, reason: str) -> str:
    """Set alias and ledger to MLflow's stage; return a description of what was changed.

    Nothing happens where they agree. A version that came to Production without a ledger row
    must pass the gates now; raises PromotionRefusedError, after writing the ledger, if it
    does not: roll back then.
    """
    before = compare_productions(registry)
    if before.agree:
        return "stage, alias and ledger agree"
    note = f"reconciled: {before.describe()}"
    staged = before.staged
    if staged is None:
        attempt = Attempt(
            registry.engine, before.recorded or 0, "Production", "Archived", actor, reason
        )
        attempt.carry_out(lambda: move_alias(registry, None), note)
        return note
    attempt = begin_attempt(registry, staged, "Production", actor, reason)
    overridden = require_passed_gates(registry, attempt)
    attempt.carry_out(
        lambda: move_alias(registry, staged), "; ".join(filter(None, [note, overridden]))
    )
    return note
