"""The guardrail flow: stops what does harm in use, without waiting for a person.

A candidate that breaches a guardrail is no longer rolled out. A release that has become Production
is watched for the time in `mlruns_config/rollout.toml`; a breach puts its predecessor back.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from sqlalchemy import Row

from flows.runtime.notifications import NOTIFICATION_HOOKS
from flows.runtime.releases import MODEL_ROLLED_BACK, ROLLOUT_STOPPED, announce, hold_registry
from flows.runtime.retries import IO_RETRIES
from mlruns_config.arms import Rollout
from mlruns_config.guardrails import (
    Guardrail,
    Observed,
    find_breaches,
    load_guardrails,
    load_watch_guardrails,
)
from mlruns_config.registry.rollout import find_rollout, stop_rollout
from mlruns_config.registry.transitions import (
    Registry,
    find_predecessor,
    find_production,
    read_ledger,
    roll_back,
)
from mlruns_config.rollout_plan import load_plan
from serving.database.sessions import open_session
from serving.releases.rollout_evidence import observe_candidate, observe_production

ACTOR = "guardrail flow"


@dataclass(frozen=True)
class Watched:
    """A release that became Production lately, and the one that was it before."""

    version: int
    predecessor: int
    since: datetime


@flow(name="guardrails", timeout_seconds=600, **NOTIFICATION_HOOKS)
def watch_releases() -> list[str]:
    """Stop a candidate, or roll a new Production release back, on a breach; return the breaches.

    Empty where nothing is watched, or nothing is wrong. What is done is in the promotion ledger,
    and people are notified.
    """
    return watch_candidate() + watch_production()


def watch_candidate() -> list[str]:
    rollout = find_candidate()
    if rollout is None:
        get_run_logger().info("no candidate is being rolled out")
        return []
    observed, guardrails = observe(rollout.version), load_guardrails()
    breaches = find_breaches(guardrails, observed)
    title = f"Release {rollout.version}, {rollout.describe()}"
    create_markdown_artifact(describe(title, guardrails, observed, breaches), key="guardrails")
    reason = "; ".join(breaches)
    # Stop first, tell afterwards.
    if breaches and stop(rollout.version, reason):
        message = f"the rollout of release {rollout.version} was stopped: {reason}"
        announce(ROLLOUT_STOPPED, rollout.version, message, reason=reason)
    return breaches


def watch_production() -> list[str]:
    watched = find_watched()
    if watched is None:
        get_run_logger().info("no release is new in Production")
        return []
    observed, guardrails = compare(watched), load_watch_guardrails()
    breaches = find_breaches(guardrails, observed)
    title = f"Release {watched.version}, in Production since {watched.since:%Y-%m-%d %H:%M}"
    create_markdown_artifact(describe(title, guardrails, observed, breaches), key="watch")
    reason = "; ".join(breaches)
    if breaches and (back := put_back(watched.version, reason)) is not None:
        message = f"release {watched.version} was rolled back to release {back}: {reason}"
        announce(MODEL_ROLLED_BACK, watched.version, message, reason=reason, production=back)
    return breaches


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def find_candidate() -> Rollout | None:
    with hold_registry() as registry:
        return find_rollout(registry)


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def find_watched() -> Watched | None:
    """Return the Production release if it is to be watched: new, and with one to go back to."""
    with hold_registry() as registry:
        production, predecessor = find_production(registry), find_predecessor(registry)
        if production is None or predecessor is None:
            return None
        promotion = find_promotion(registry, production)
    if promotion is None or datetime.now(UTC) - promotion > timedelta(
        hours=load_plan().watch.hours
    ):
        return None
    return Watched(production, predecessor, promotion)


def find_promotion(registry: Registry, version: int) -> datetime | None:
    """Return when a release became Production through its gates; None if by a rollback.

    What was rolled back to is the known one: it is not watched again.
    """
    entries = [entry for entry in read_ledger(registry) if _moved_production(entry)]
    last = entries[-1] if entries else None
    return last.created_at if last is not None and last.version == version and last.gates else None


def _moved_production(entry: Row[Any]) -> bool:
    return bool(entry.result == "promoted" and entry.to_stage == "Production")


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def observe(version: int) -> Observed:
    """Return what was seen of a candidate since its rollout began."""
    with hold_registry() as registry, open_session(registry.engine) as session:
        return observe_candidate(session, version)


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def compare(watched: Watched) -> Observed:
    """Return what a new Production release answers beside what its predecessor answered."""
    with hold_registry() as registry, open_session(registry.engine) as session:
        return observe_production(session, watched.version, watched.predecessor, watched.since)


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def stop(version: int, reason: str) -> bool:
    """Stop the rollout of `version`; False when it is no longer the one that is rolled out."""
    with hold_registry() as registry:
        current = find_rollout(registry)
        if current is None or current.version != version:
            return False
        stop_rollout(registry, ACTOR, reason)
        return True


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def put_back(version: int, reason: str) -> int | None:
    """Roll Production back from `version`; None when that is no longer Production.

    Raises PromotionRefusedError where the predecessor is not what was registered any more: the
    run fails then, and people are notified.
    """
    with hold_registry() as registry:
        if find_production(registry) != version:
            return None
        return roll_back(registry, ACTOR, reason)


def describe(
    title: str, guardrails: tuple[Guardrail, ...], observed: Observed, breaches: list[str]
) -> str:
    """Return what was measured beside its limits, as Markdown."""
    lines = [
        f"{title}: {observed.screenings:,} screenings, "
        + ("; ".join(breaches) or "within its guardrails"),
        "",
        "| measure | value | at most | assessed after |",
        "|---|---:|---:|---:|",
    ]
    for guardrail in guardrails:
        value = observed.measures.get(guardrail.measure)
        shown = "not measured" if value is None else f"{value:.3g}"
        decisions = guardrail.after_decisions
        after = f"{guardrail.after}" + (f", {decisions} decided" if decisions else "")
        lines.append(f"| {guardrail.measure} | {shown} | {guardrail.maximum:g} | {after} |")
    return "\n".join(lines)
