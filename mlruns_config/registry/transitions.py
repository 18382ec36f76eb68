"""Transitions in the MLflow registry: the only place that moves a version between stages.

A transition sets the MLflow stage (what reviewers see and `models:/name/Production` loads)
and the alias `production`, and leaves a row in the promotion ledger, whether it was carried
out, refused or failed: MLflow itself keeps no history.

Command line: ``python -m mlruns_config.registry --help``.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any, Literal, get_args

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from sqlalchemy import Engine, Row, select

from mlruns_config.attempt import Attempt, PromotionFailedError, PromotionRefusedError
from mlruns_config.candidate import ABSENT, clear_candidate, find_by_alias, read_candidate
from mlruns_config.data_origin import find_mixed_origin
from mlruns_config.gates import Gate, drop_stale_comparisons, load_gates, select_gates
from mlruns_config.integrity import list_damage, load_manifest_text
from mlruns_config.ledger import promotion_ledger
from mlruns_config.manifest import EVALUATED_FILE, RELEASE_MODEL, ReleaseManifest
from mlruns_config.overrides import Override, apply_overrides, find_flaw, list_in_force

__all__ = ["PromotionFailedError", "PromotionRefusedError"]  # raised here, caught by callers

Stage = Literal["None", "Staging", "Production", "Archived"]
PRODUCTION_ALIAS = "production"


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
    model_version = find_by_alias(registry.client, model, PRODUCTION_ALIAS)
    return None if model_version is None else int(model_version.version)


def promote(
    registry: Registry, version: int, to_stage: Stage, actor: str, reason: str
) -> ModelVersion:
    """Move a release version to a stage; to Production only through the gates.

    A candidate that leaves Staging is no longer rolled out. A version that is in the stage already
    stays as it is, and the ledger says `unchanged`. Raises PromotionRefusedError,
    after writing the ledger, when the version does not exist, a gate fails that nobody
    overrode, a member it pins is not in the registry, the manifest or an artifact is not
    the one that was registered, or it was trained on simulated people and this state holds real
    ones; PromotionFailedError when MLflow does not carry it out.
    """
    attempt = begin_attempt(registry, version, to_stage, actor, reason)
    if is_there(registry, attempt):
        attempt.record("unchanged", f"it was in {to_stage} already")
        return registry.client.get_model_version(RELEASE_MODEL, str(version))
    note = require_passed_gates(registry, attempt) if to_stage == "Production" else ""
    attempt.carry_out(lambda: _transition(registry, version, to_stage), note)
    return registry.client.get_model_version(RELEASE_MODEL, str(version))


def is_there(registry: Registry, attempt: Attempt) -> bool:
    """Return True if the version is in the stage by MLflow's stage, alias and the ledger."""
    version, is_production = attempt.version, attempt.to_stage == "Production"
    recorded = replay_productions(registry)[-1:] == [version]
    has_alias = find_production(registry) == version
    return attempt.from_stage == attempt.to_stage and has_alias == recorded == is_production


def begin_attempt(
    registry: Registry, version: int, to_stage: str, actor: str, reason: str
) -> Attempt:
    """Return an attempt on a version with its gates' values; refused if there is no such one."""
    attempt = Attempt(registry.engine, version, "unknown", to_stage, actor, reason)
    model_version = find_version(registry, version)
    if model_version is None:
        attempt.refuse(f"{RELEASE_MODEL} has no version {version}")
    metrics = read_metrics(registry, model_version)
    gates = list_gates(registry, version)
    values = {gate.metric: metrics.get(gate.metric) for gate in gates}
    return replace(attempt, from_stage=str(model_version.current_stage), gates=values)


def require_passed_gates(registry: Registry, attempt: Attempt) -> str:
    """Refuse an attempt that a gate or a damaged release forbids; return what was overridden."""
    measured = _keep_measured(attempt.gates)
    overrides = find_overrides(registry, attempt.version)
    gates = list_gates(registry, attempt.version)
    failures, used = apply_overrides(gates, measured, overrides)
    failures += list_obstacles(registry, attempt.version)
    if failures:
        attempt.refuse(f"{RELEASE_MODEL} {attempt.version}: {'; '.join(failures)}")
    return "; ".join(override.describe() for override in used)


def list_obstacles(registry: Registry, version: int) -> list[str]:
    """Return what no override covers: damage, and simulated people where real ones are held."""
    damage = list_damage(registry.client, version)
    return damage or find_mixed_origin(registry.engine, read_manifest(registry, version))


def override_gate(
    registry: Registry, version: int, metric: str, until: date, actor: str, reason: str
) -> Override:
    """Leave one gate out for one version up to and including a day (UTC); it moves nothing.

    Raises PromotionRefusedError, after writing the ledger, when the version does not exist,
    the metric is not a gate or was not measured, nobody or no reason is named, or the day has
    passed or is more than 30 days away.
    """
    override = Override(metric, until, actor)
    attempt = begin_attempt(registry, version, "override", actor, reason)
    flaw = find_flaw(override, registry.gates, _keep_measured(attempt.gates), _get_today())
    attempt = replace(attempt, gates={"metric": metric, "until": until.isoformat()})
    if not (actor.strip() and reason.strip()):
        attempt.refuse("an override needs who decides it and why")
    if flaw is not None:
        attempt.refuse(f"{RELEASE_MODEL} {version}: {flaw}")
    attempt.record("overridden")
    return override


def find_overrides(registry: Registry, version: int) -> dict[str, Override]:
    """Return the overrides of a version that have not expired, by metric."""
    return list_in_force(read_ledger(registry, version), _get_today())


def list_gates(registry: Registry, version: int) -> tuple[Gate, ...]:
    """Return the gates that a version must pass to become Production now."""
    return select_gates(registry.gates, version, find_production(registry))


def read_metrics(registry: Registry, model_version: ModelVersion) -> dict[str, float]:
    """Return the metrics of the run that made a version, as far as they hold now.

    Those of a comparison with a release that is not in Production any more do not.
    """
    metrics = registry.client.get_run(str(model_version.run_id)).data.metrics
    return drop_stale_comparisons(registry.gates, metrics, find_production(registry))


def roll_back(registry: Registry, actor: str, reason: str) -> int:
    """Put the release that was Production before back; return its version.

    The earlier release passed its gates when it was promoted, so they are not asked again:
    a rollback is for when something is wrong now. That its artifacts are still the registered
    ones is asked, and that it was not trained on simulated people where real ones are held. A
    release that was rolled back from is not returned to: a second rollback goes further back.
    Raises as `promote` does.
    """
    current, earlier = find_production(registry), find_predecessor(registry)
    attempt = Attempt(registry.engine, earlier or 0, "unknown", "Production", actor, reason)
    model_version = find_version(registry, earlier) if earlier is not None else None
    if model_version is None:
        attempt.refuse(f"{RELEASE_MODEL} has no earlier Production version")
    version = int(model_version.version)
    if obstacles := list_obstacles(registry, version):
        attempt.refuse(f"{RELEASE_MODEL} {version}: {'; '.join(obstacles)}")
    replace(attempt, from_stage=str(model_version.current_stage)).carry_out(
        lambda: _transition(registry, version, "Production"), f"rollback from {current}"
    )
    return version


def find_version(registry: Registry, version: int) -> ModelVersion | None:
    """Return a release version, None when the registry has no such one."""
    try:
        return registry.client.get_model_version(RELEASE_MODEL, str(version))
    except MlflowException as error:
        if error.error_code not in ABSENT:
            raise
        return None


def _keep_measured(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}


def _get_today() -> date:
    return datetime.now(UTC).date()


def read_manifest(registry: Registry, version: int) -> ReleaseManifest:
    """Return the manifest of a release version, as its run logged it."""
    text = load_manifest_text(registry.client, version)
    return ReleaseManifest.model_validate_json(text)


def list_once_in_production(registry: Registry, newest: int) -> list[int]:
    """Return the versions that were promoted to Production, the latest promotions first."""
    versions = [
        int(entry.version)
        for entry in reversed(read_ledger(registry))
        if entry.to_stage == "Production" and entry.result == "promoted"
    ]
    return list(dict.fromkeys(versions))[:newest]


def read_evaluated(registry: Registry, version: int) -> ReleaseManifest:
    """Return the manifest that the evaluation of a release version was of.

    Releases of schema 3 were deployed as they were evaluated: theirs is the manifest itself.
    """
    manifest = read_manifest(registry, version)
    if manifest.schema_version == 3:
        return manifest
    text = load_manifest_text(registry.client, version, EVALUATED_FILE)
    return ReleaseManifest.model_validate_json(text)


def _transition(registry: Registry, version: int, to_stage: Stage) -> None:
    with _accept_stages():
        registry.client.transition_model_version_stage(
            RELEASE_MODEL,
            str(version),
            to_stage,
            archive_existing_versions=to_stage == "Production",
        )
    if to_stage == "Production":
        move_alias(registry, version)
    elif find_production(registry) == version:
        move_alias(registry, None)
    if to_stage != "Staging":
        _end_rollout(registry, version)


def move_alias(registry: Registry, version: int | None) -> None:
    """Let the alias `production` name a version, or nothing."""
    if version is None:
        registry.client.delete_registered_model_alias(RELEASE_MODEL, PRODUCTION_ALIAS)
    else:
        registry.client.set_registered_model_alias(RELEASE_MODEL, PRODUCTION_ALIAS, str(version))


def _end_rollout(registry: Registry, version: int) -> None:
    candidate = read_candidate(registry.client)
    if candidate is not None and candidate.version == version:
        clear_candidate(registry.client, version)


@contextmanager
def _accept_stages() -> Iterator[None]:
    # Stages are deprecated since MLflow 2.9 but are what the specification and reviewers use.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def find_predecessor(registry: Registry) -> int | None:
    """Return the release that a rollback of Production would put back, or None."""
    current = find_production(registry)
    history = replay_productions(registry)
    while current in history:
        history.pop()
    return history[-1] if history else None


def replay_productions(registry: Registry) -> list[int]:
    """Return the versions that were Production one after the other, undone ones left out."""
    history: list[int] = []
    for entry in read_ledger(registry):
        if entry.result != "promoted" or entry.to_stage not in get_args(Stage):
            continue  # refused, or a step of a rollout
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
