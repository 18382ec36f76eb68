"""Transitions in the MLflow registry: the only place that moves a version between stages.

A transition sets the MLflow stage (what reviewers see and `models:/name/Production` loads)
and the alias `production`, and leaves a row in the promotion ledger, whether it was carried
out or refused: MLflow itself keeps no history.

Command line: ``python -m mlruns_config.registry list|show|promote|rollback``.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from sqlalchemy import Engine, select

from mlruns_config.gates import Gate, find_failures, load_gates
from mlruns_config.ledger import LedgerEntry, append_to_ledger, promotion_ledger
from mlruns_config.release import MANIFEST_FILE, RELEASE_MODEL, ReleaseManifest

Stage = Literal["None", "Staging", "Production", "Archived"]
PRODUCTION_ALIAS = "production"


class PromotionRefusedError(RuntimeError):
    """A version may not change stage; the message says why, the ledger keeps it."""


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
    except MlflowException:
        return None


def promote(
    registry: Registry, version: int, to_stage: Stage, actor: str, reason: str
) -> ModelVersion:
    """Move a release version to a stage; to Production only through the gates.

    Raises PromotionRefusedError, after writing the ledger, when the version does not exist,
    a gate fails, or a member it pins is not in the registry.
    """
    known = _get_version(registry, version, to_stage, actor, reason)
    metrics = registry.client.get_run(str(known.run_id)).data.metrics
    values = {gate.metric: metrics.get(gate.metric) for gate in registry.gates}
    failures = _list_obstacles(registry, version, metrics) if to_stage == "Production" else []
    entry = _Attempt(registry, version, str(known.current_stage), to_stage, actor, reason, values)
    if failures:
        entry.record("refused", "; ".join(failures))
        raise PromotionRefusedError(f"{RELEASE_MODEL} {version}: {'; '.join(failures)}")
    _transition(registry, version, to_stage)
    entry.record("promoted")
    return registry.client.get_model_version(RELEASE_MODEL, str(version))


def roll_back(registry: Registry, actor: str, reason: str) -> int:
    """Put the release that was Production before back; return its version.

    The earlier release passed its gates when it was promoted, so they are not asked again:
    a rollback is for when something is wrong now.
    """
    current = find_production(registry)
    earlier = _find_previous_production(registry, current)
    if earlier is None:
        raise PromotionRefusedError(f"{RELEASE_MODEL} has no earlier Production version")
    attempt = _Attempt(registry, earlier, "Archived", "Production", actor, reason, {})
    _transition(registry, earlier, "Production")
    attempt.record("promoted", f"rollback from {current}")
    return earlier


@dataclass(frozen=True)
class _Attempt:
    registry: Registry
    version: int
    from_stage: str
    to_stage: str
    actor: str
    reason: str
    gates: Mapping[str, Any]

    def record(self, result: Literal["promoted", "refused", "failed"], note: str = "") -> None:
        reason = f"{self.reason} ({note})" if note else self.reason
        entry = LedgerEntry(
            model=RELEASE_MODEL,
            version=self.version,
            from_stage=self.from_stage,
            to_stage=self.to_stage,
            actor=self.actor,
            reason=reason,
            result=result,
            gates=self.gates,
        )
        with self.registry.engine.begin() as connection:
            append_to_ledger(connection, entry)


def _get_version(
    registry: Registry, version: int, to_stage: Stage, actor: str, reason: str
) -> ModelVersion:
    try:
        return registry.client.get_model_version(RELEASE_MODEL, str(version))
    except MlflowException as error:
        attempt = _Attempt(registry, version, "unknown", to_stage, actor, reason, {})
        attempt.record("refused", "no such version")
        raise PromotionRefusedError(f"{RELEASE_MODEL} has no version {version}") from error


def _list_obstacles(registry: Registry, version: int, metrics: Mapping[str, float]) -> list[str]:
    return [*find_failures(registry.gates, metrics), *_list_unknown_members(registry, version)]


def _list_unknown_members(registry: Registry, version: int) -> list[str]:
    unknown = []
    for member in read_manifest(registry, version).members:
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


@contextmanager
def _accept_stages() -> Iterator[None]:
    # Stages are deprecated since MLflow 2.9 but are what the specification and reviewers use.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _find_previous_production(registry: Registry, current: int | None) -> int | None:
    table = promotion_ledger
    statement = (
        select(table.c.version)
        .where(table.c.model == RELEASE_MODEL)
        .where(table.c.to_stage == "Production", table.c.result == "promoted")
        .where(table.c.version != current)
        .order_by(table.c.id.desc())
        .limit(1)
    )
    with registry.engine.connect() as connection:
        return connection.execute(statement).scalar_one_or_none()
