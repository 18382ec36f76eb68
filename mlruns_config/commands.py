"""The command line of the registry: ``python -m mlruns_config.registry``.

Needs DATABASE_URL (the promotion ledger) and MLFLOW_TRACKING_URI. Changes name who made
them and why; a refusal ends with exit code 1.
"""

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import ArgumentError

from mlruns_config.registry import (
    PRODUCTION_ALIAS,
    PromotionFailedError,
    PromotionRefusedError,
    Registry,
    find_production,
    find_version,
    open_registry,
    promote,
    read_ledger,
    read_manifest,
    roll_back,
)
from mlruns_config.release import RELEASE_MODEL

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
    production = find_production(registry)
    table = Table("version", "stage", "alias", "registered (UTC)", "run", title=RELEASE_MODEL)
    found = registry.client.search_model_versions(f"name='{RELEASE_MODEL}'")
    for known in sorted(found, key=lambda one: int(one.version), reverse=True):
        alias = PRODUCTION_ALIAS if int(known.version) == production else ""
        table.add_row(
            str(known.version),
            known.current_stage,
            alias,
            _tell_time(known.creation_timestamp),
            known.run_id,
        )
    _print(table)


@app.command("show")
def show_release(version: Version) -> None:
    """Show a release's members, its metrics against the gates, and its ledger."""
    registry = connect(os.environ)
    known = find_version(registry, version)
    if known is None:
        _stop(f"{RELEASE_MODEL} has no version {version}")
    members = Table("member", "model", "version", "weight", title=f"{RELEASE_MODEL} {version}")
    manifest = read_manifest(registry, version)
    for pin in manifest.members:
        weight = manifest.stacker.coefficients.get(pin.name, 0.0)
        members.add_row(pin.name, pin.registered_model, str(pin.version), f"{weight:.3f}")
    _print(members)
    _print(_compare_with_gates(registry, registry.client.get_run(str(known.run_id)).data.metrics))
    _print(_tell_ledger(registry, version))


@app.command("promote")
def promote_release(
    version: Version, actor: Actor, reason: Reason, to: Target = Target.PRODUCTION
) -> None:
    """Move a release to a stage; to Production only through the gates."""
    registry = connect(os.environ)
    _require_words(actor=actor, reason=reason)
    try:
        promote(registry, version, to.value, actor, reason)
    except (PromotionRefusedError, PromotionFailedError) as error:
        _stop(str(error))
    typer.echo(f"{RELEASE_MODEL} {version} is in {to.value}")


@app.command("rollback")
def roll_release_back(actor: Actor, reason: Reason) -> None:
    """Put the release that was Production before back."""
    registry = connect(os.environ)
    _require_words(actor=actor, reason=reason)
    try:
        version = roll_back(registry, actor, reason)
    except (PromotionRefusedError, PromotionFailedError) as error:
        _stop(str(error))
    typer.echo(f"{RELEASE_MODEL} {version} is in Production again")


def connect(environment: Mapping[str, str]) -> Registry:
    """Open the registry that the environment names; stop with a hint if it names none."""
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


def _compare_with_gates(registry: Registry, metrics: Mapping[str, float]) -> Table:
    table = Table("gate", "value", "at least", "at most", "result", title="gates")
    for gate in registry.gates:
        value = metrics.get(gate.metric)
        numbers = [_tell_number(number) for number in (value, gate.minimum, gate.maximum)]
        table.add_row(gate.metric, *numbers, "failed" if gate.find_failure(metrics) else "passed")
    return table


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
