"""Transitions in the MLflow registry: the only place that moves a version between stages.

A transition sets the MLflow stage (what reviewers see and `models:/name/Production` loads)
and the alias `production`, and leaves a row in the promotion ledger, whether it was carried
out, refused or failed: MLflow itself keeps no history.

Command line: ``python -m mlruns_config.registry list|show|promote|rollback``.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, NoReturn

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from pydantic import ValidationError
from sqlalchemy import Engine, Row, select

from mlruns_config.gates import Gate, find_failures, load_gates
from mlruns_config.ledger import LedgerEntry, append_to_ledger, promotion_ledger
from mlruns_config.release import MANIFEST_FILE, RELEASE_MODEL, ReleaseManifest

Stage = Literal["None", "Staging", "Production", "Archived"]
PRODUCTION_ALIAS = "production"
#: How MLflow says that a model or version (the first) or an alias (the second) is not there.
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


class PromotionRefusedError(RuntimeError):
    """A version may not change stage; the message says why, the ledger keeps it."""


class PromotionFailedError(RuntimeError):
    """MLflow did not carry a transition out; the ledger keeps the attempt as failed."""


@dataclass(frozen=True)
class Registry:
    """MLflow's registry and the ledger beside it."""

    client: MlflowClient
    engine: Engine
    gates: tuple[Gate, ...]


def open_registry(tracking_uri: str, engine: Engine) -> Registry:
    return Registry(MlflowClient(tracking_uri), engine, load_gates())


def find_production(registry: Registry, model: str = RELEASE_MODEL) -> int | None:
    """Return the numeric version with the alias `production`, or None."""
    try:
        return int(registry.client.get_model_version_by_alias(model, PRODUCTION_ALIAS).version)
    except MlflowException as error:
        if error.error_code not in ABSENT:
            raise
        return None


def promote(
    registry: Registry, version: int, to_stage: Stage, actor: str, reason: str
) -> ModelVersion:
    """Move a release version to a stage; to Production only through the gates.

    Raises PromotionRefusedError, after writing the ledger, when the version does not exist,
    a gate fails, or a member it pins is not in the registry; PromotionFailedError when MLflow
    does not carry it out.
    """
    attempt = _Attempt(registry, version, "unknown", to_stage, actor, reason, {})
    known = find_version(registry, version)
    if known is None:
        attempt.refuse(f"{RELEASE_MODEL} has no version {version}")
    metrics = registry.client.get_run(str(known.run_id)).data.metrics
    values = {gate.metric: metrics.get(gate.metric) for gate in registry.gates}
    attempt = replace(attempt, from_stage=str(known.current_stage), gates=values)
    failures = _list_obstacles(registry, version, metrics) if to_stage == "Production" else []
    if failures:
        attempt.refuse(f"{RELEASE_MODEL} {version}: {'; '.join(failures)}")
    attempt.carry_out()
    return registry.client.get_model_version(RELEASE_MODEL, str(version))


def roll_back(registry: Registry, actor: str, reason: str) -> int:
    """Put the release that was Production before back; return its version.

    The earlier release passed its gates when it was promoted, so they are not asked again:
    a rollback is for when something is wrong now. A release that was rolled back from is not
    returned to: a second rollback goes further back. Raises as `promote` does.
    """
    current = find_production(registry)
    earlier = _find_previous_production(registry, current)
    attempt = _Attempt(registry, earlier or 0, "unknown", "Production", actor, reason, {})
    known = find_version(registry, earlier) if earlier is not None else None
    if known is None:
        attempt.refuse(f"{RELEASE_MODEL} has no earlier Production version")
    replace(attempt, from_stage=str(known.current_stage)).carry_out(f"rollback from {current}")
    return int(known.version)


def find_version(registry: Registry, version: int) -> ModelVersion | None:
    """Return a release version, None when the registry has no such one."""
    try:
        return registry.client.get_model_version(RELEASE_MODEL, str(version))
    except MlflowException as error:
        if error.error_code not in ABSENT:
            raise
        return None


@dataclass(frozen=True)
class _Attempt:
    """A transition that somebody wants; `gates` are the values it was judged by."""

    registry: Registry
    version: int
    from_stage: str
    to_stage: Stage
    actor: str
    reason: str
    gates: Mapping[str, Any]

    def refuse(self, why: str) -> NoReturn:
        with self.registry.engine.begin() as connection:
            append_to_ledger(connection, self._describe("refused", why))
        raise PromotionRefusedError(why)

    def carry_out(self, note: str = "") -> None:
        """Move the version in MLflow and leave the ledger row that says so.

        The row is written first and committed last: without a ledger that takes it nothing
        moves, and a transition that MLflow refuses leaves no row that says it happened.
        """
        try:
            with self.registry.engine.begin() as connection:
                append_to_ledger(connection, self._describe("promoted", note))
                _transition(self.registry, self.version, self.to_stage)
        except MlflowException as error:
            why = f"MLflow did not move {RELEASE_MODEL} {self.version} to {self.to_stage}"
            with self.registry.engine.begin() as connection:
                append_to_ledger(connection, self._describe("failed", error.error_code))
            raise PromotionFailedError(f"{why}: {error.error_code}") from error

    def _describe(self, result: Literal["promoted", "refused", "failed"], note: str) -> LedgerEntry:
        return LedgerEntry(
            model=RELEASE_MODEL,
            version=self.version,
            from_stage=self.from_stage,
            to_stage=self.to_stage,
            actor=self.actor,
            reason=f"{self.reason} ({note})" if note else self.reason,
            result=result,
            gates=self.gates,
        )


def _list_obstacles(registry: Registry, version: int, metrics: Mapping[str, float]) -> list[str]:
    return [*find_failures(registry.gates, metrics), *_list_unknown_members(registry, version)]


def _list_unknown_members(registry: Registry, version: int) -> list[str]:
    try:
        members = read_manifest(registry, version).members
    except (MlflowException, OSError, ValidationError):
        return ["its manifest cannot be read"]
    unknown = []
    for member in members:
        try:
            registry.client.get_model_version(member.registered_model, str(member.version))
        except MlflowException:
            unknown.append(f"{member.registered_model} has no version {member.version}")
    return unknown


def read_manifest(registry: Registry, version: int) -> ReleaseManifest:
    """Return the manifest of a release version, as its run logged it."""
    run_id = registry.client.get_model_version(RELEASE_MODEL, str(version)).run_id
    artifact_uri = registry.client.get_run(str(run_id)).info.artifact_uri
    text = _load_text(registry, f"{artifact_uri}/release/{MANIFEST_FILE}")
    return ReleaseManifest.model_validate_json(text)


def _load_text(registry: Registry, uri: str) -> str:
    from mlflow.artifacts import load_text

    return load_text(uri)


def _transition(registry: Registry, version: int, to_stage: Stage) -> None:
    with _accept_stages():
        registry.client.transition_model_version_stage(
            RELEASE_MODEL,
            str(version),
            to_stage,
            archive_existing_versions=to_stage == "Production",
        )
    if to_stage == "Production":
        registry.client.set_registered_model_alias(RELEASE_MODEL, PRODUCTION_ALIAS, str(version))
    elif find_production(registry) == version:
        registry.client.delete_registered_model_alias(RELEASE_MODEL, PRODUCTION_ALIAS)


@contextmanager
def _accept_stages() -> Iterator[None]:
    # Stages are deprecated since MLflow 2.9 but are what the specification and reviewers use.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _find_previous_production(registry: Registry, current: int | None) -> int | None:
    history = _replay_productions(registry)
    while current in history:
        history.pop()
    return history[-1] if history else None


def _replay_productions(registry: Registry) -> list[int]:
    """Return the versions that were Production one after the other, undone ones left out."""
    history: list[int] = []
    for entry in read_ledger(registry):
        if entry.result != "promoted":
            continue
        if entry.to_stage != "Production":
            history = history[:-1] if history[-1:] == [entry.version] else history
        elif entry.gates:
            history.append(entry.version)
        else:  # a rollback asks no gates
            while entry.version in history[:-1]:
                history.pop()
    return history


def read_ledger(registry: Registry, version: int | None = None) -> list[Row[Any]]:
    """Return the ledger of releases, or of one version, oldest entry first."""
    table = promotion_ledger
    statement = select(table).where(table.c.model == RELEASE_MODEL).order_by(table.c.id)
    if version is not None:
        statement = statement.where(table.c.version == version)
    with registry.engine.connect() as connection:
        return list(connection.execute(statement))


if __name__ == "__main__":
    from mlruns_config.commands import app

    app()
