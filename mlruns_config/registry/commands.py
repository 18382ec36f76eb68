"""The command line of the registry: ``python -m mlruns_config.registry``.

Needs DATABASE_URL (the promotion ledger) and MLFLOW_TRACKING_URI. Changes name who made
them and why; a refusal ends with exit code 1.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import ArgumentError

from mlruns_config.arms import CANDIDATE_ALIAS, Rollout
from mlruns_config.gates import Gate
from mlruns_config.manifest import RELEASE_MODEL
from mlruns_config.overrides import Override, apply_overrides
from mlruns_config.registry.reconcile import compare_productions, reconcile
from mlruns_config.registry.rollout import (
    find_rollout,
    set_traffic_share,
    start_shadow,
    stop_rollout,
)
from mlruns_config.registry.transitions import (
    PRODUCTION_ALIAS,
    PromotionFailedError,
    PromotionRefusedError,
    Registry,
    find_overrides,
    find_production,
    find_version,
    list_gates,
    open_registry,
    override_gate,
    promote,
    read_ledger,
    read_manifest,
    read_metrics,
    roll_back,
)

HINTS = {
    "DATABASE_URL": "postgresql://user:password@host:5432/mhras",
    "MLFLOW_TRACKING_URI": "http://127.0.0.1:5000",
}

app: typer.Typer = typer.Typer(
    help="Releases in the MLflow registry, and the ledger of who moved them and why.",
    no_args_is_help=True,
    add_completion=False,
    # Tracebacks would show local variables, database addresses among them.
    pretty_exceptions_show_locals=False,
)
Actor = Annotated[str, typer.Option(help="Who decides; kept in the ledger.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the ledger.")]
Share = Annotated[float, typer.Argument(help="Of individuals, above 0 and up to 1.")]
Metric = Annotated[str, typer.Argument(help="The metric of the gate that is left out.")]
Until = Annotated[
    datetime, typer.Option(formats=["%Y-%m-%d"], help="Last day (UTC); at most 30 days away.")
]
Version = Annotated[int, typer.Argument(min=1, help=f"Numeric version of {RELEASE_MODEL}.")]


class Target(StrEnum):
    """The stages a command may move a version to."""

    STAGING = "Staging"
    PRODUCTION = "Production"
    ARCHIVED = "Archived"


@app.command("list")
def list_releases() -> None:
    """List every release with its stage."""
    registry = connect(os.environ)
    production, rollout = find_production(registry), find_rollout(registry)
    table = Table("version", "stage", "alias", "registered (UTC)", "run", title=RELEASE_MODEL)
    model_versions = registry.client.search_model_versions(f"name='{RELEASE_MODEL}'")
    for model_version in sorted(
        model_versions, key=lambda model_version: int(model_version.version), reverse=True
    ):
        table.add_row(
            str(model_version.version),
            model_version.current_stage,
            _name_aliases(int(model_version.version), production, rollout),
            _tell_time(model_version.creation_timestamp),
            model_version.run_id,
        )
    _print(table)
    _warn_of_disagreement(registry)


@app.command("show")
def show_release(version: Version) -> None:
    """Show a release's members, its metrics against the gates, and its ledger."""
    registry = connect(os.environ)
    model_version = find_version(registry, version)
    if model_version is None:
        _stop(f"{RELEASE_MODEL} has no version {version}")
    aliases = _name_aliases(version, find_production(registry), find_rollout(registry))
    title = f"{RELEASE_MODEL} {version}: {model_version.current_stage} {aliases}".rstrip()
    members = Table("member", "model", "version", "weight", title=title)
    manifest = read_manifest(registry, version)
    for pin in manifest.members:
        weight = manifest.find_weight(pin.name)
        members.add_row(pin.name, pin.registered_model, str(pin.version), f"{weight:.3f}")
    _print(members)
    _print(_compare_with_gates(registry, version, read_metrics(registry, model_version)))
    _print(_tell_ledger(registry, version))
    _warn_of_disagreement(registry)


@app.command("promote")
def promote_release(
    version: Version, actor: Actor, reason: Reason, to: Target = Target.PRODUCTION
) -> None:
    """Move a release to a stage; to Production only through the gates."""
    registry = connect(os.environ)
    _require_words(actor=actor, reason=reason)
    with _stop_when_refused():
        promote(registry, version, to.value, actor, reason)
    typer.echo(f"{RELEASE_MODEL} {version} is in {to.value}")


@app.command("rollback")
def roll_release_back(actor: Actor, reason: Reason) -> None:
    """Put the release that was Production before back."""
    registry = connect(os.environ)
    _require_words(actor=actor, reason=reason)
    with _stop_when_refused():
        version = roll_back(registry, actor, reason)
    typer.echo(f"{RELEASE_MODEL} {version} is in Production again")


@app.command("reconcile")
def reconcile_production(actor: Actor, reason: Reason) -> None:
    """Repair a disagreement about Production after an interrupted transition."""
    registry = connect(os.environ)
    _require_words(actor=actor, reason=reason)
    with _stop_when_refused():
        typer.echo(f"{RELEASE_MODEL}: {reconcile(registry, actor, reason)}")


@app.command("override")
def override_release_gate(
    version: Version, metric: Metric, until: Until, actor: Actor, reason: Reason
) -> None:
    """Leave one failing gate out for one release until a day; never a missing metric."""
    registry = connect(os.environ)
    _require_words(actor=actor, reason=reason)
    with _stop_when_refused():
        override = override_gate(registry, version, metric, until.date(), actor, reason)
    typer.echo(f"{RELEASE_MODEL} {version}: {override.describe()}")


@app.command("shadow")
def shadow_release(version: Version, actor: Actor, reason: Reason) -> None:
    """Let a release in Staging score beside Production without answering anyone."""
    registry = connect(os.environ)
    _require_words(actor=actor, reason=reason)
    with _stop_when_refused():
        start_shadow(registry, version, actor, reason)
    typer.echo(f"{RELEASE_MODEL} {version} scores in shadow")


@app.command("share")
def share_traffic(share: Share, actor: Actor, reason: Reason) -> None:
    """Let the candidate answer for a share of individuals; only through the gates."""
    registry = connect(os.environ)
    _require_words(actor=actor, reason=reason)
    with _stop_when_refused():
        changed = set_traffic_share(registry, share, actor, reason)
    typer.echo(f"{RELEASE_MODEL} {changed.version} answers for {share:.4g} of individuals")


@app.command("stop")
def stop_candidate(actor: Actor, reason: Reason) -> None:
    """End the rollout: Production answers everyone again."""
    registry = connect(os.environ)
    _require_words(actor=actor, reason=reason)
    with _stop_when_refused():
        version = stop_rollout(registry, actor, reason)
    typer.echo(f"{RELEASE_MODEL} {version} is no longer rolled out")


def connect(environment: Mapping[str, str]) -> Registry:
    """Open the registry that the environment names; stop with a hint if it names none."""
    # Bars of every artifact that is hashed would stand between the tables.
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    missing = [name for name in HINTS if not environment.get(name)]
    if missing:
        _stop("\n".join(f"{name} is not set (for example: {HINTS[name]})" for name in missing))
    try:
        # SQLAlchemy 2.1 reads a bare postgresql:// as psycopg 3.
        url = make_url(environment["DATABASE_URL"]).set(drivername="postgresql+psycopg2")
    except ArgumentError:
        _stop(f"DATABASE_URL is not a database's address (for example: {HINTS['DATABASE_URL']})")
    engine = create_engine(url, hide_parameters=True)
    return open_registry(environment["MLFLOW_TRACKING_URI"], engine)


@contextmanager
def _stop_when_refused() -> Iterator[None]:
    try:
        yield
    except (PromotionRefusedError, PromotionFailedError) as error:
        _stop(str(error))


def _warn_of_disagreement(registry: Registry) -> None:
    productions = compare_productions(registry)
    if not productions.agree:
        typer.echo(
            f"Production is in doubt: {productions.describe()}. A transition was interrupted; "
            "`reconcile` repairs it.",
            err=True,
        )


def _name_aliases(version: int, production: int | None, rollout: Rollout | None) -> str:
    names = [PRODUCTION_ALIAS] if version == production else []
    if rollout is not None and rollout.version == version:
        names.append(f"{CANDIDATE_ALIAS} ({rollout.describe()})")
    return ", ".join(names)


def _compare_with_gates(registry: Registry, version: int, metrics: Mapping[str, float]) -> Table:
    table = Table("gate", "value", "at least", "at most", "result", title="gates")
    overrides = find_overrides(registry, version)
    for gate in list_gates(registry, version):
        value = metrics.get(gate.metric)
        numbers = [_tell_number(number) for number in (value, gate.minimum, gate.maximum)]
        table.add_row(gate.metric, *numbers, _judge(gate, metrics, overrides))
    return table


def _judge(gate: Gate, metrics: Mapping[str, float], overrides: Mapping[str, Override]) -> str:
    failures, used = apply_overrides([gate], metrics, overrides)
    if used:
        return f"failed; {used[0].describe()}"
    return "failed" if failures else "passed"


def _tell_ledger(registry: Registry, version: int) -> Table:
    table = Table("when (UTC)", "from", "to", "result", "who", "why", title="ledger")
    for entry in read_ledger(registry, version):
        moment = f"{entry.created_at:%Y-%m-%d %H:%M}"
        stages = (entry.from_stage, entry.to_stage)
        table.add_row(moment, *stages, entry.result, entry.actor, entry.reason)
    return table


def _tell_number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _tell_time(milliseconds: int | None) -> str:
    moment = datetime.fromtimestamp((milliseconds or 0) / 1000, UTC)
    return f"{moment:%Y-%m-%d %H:%M}"


def _print(table: Table) -> None:
    # Redirected output has no width of its own; a table cut to 80 columns says too little.
    console = Console(width=None if Console().is_terminal else 200)
    console.print(table)


def _require_words(**texts: str) -> None:
    for name, text in texts.items():
        if not text.strip():
            _stop(f"--{name} is empty: the ledger needs it")


def _stop(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(1)
