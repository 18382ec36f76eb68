"""The guardrail flow: stops a candidate that does harm in use, without waiting for a person."""

from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from sqlalchemy import Engine

from flows.notify import notify
from mlruns_config.arms import Rollout
from mlruns_config.guardrails import Observed, find_breaches, load_guardrails
from mlruns_config.registry import open_registry
from mlruns_config.rollout import find_rollout, stop_rollout
from serving.database.sessions import create_database_engine, open_session
from serving.rollout_evidence import observe_candidate
from serving.settings import get_settings

ACTOR = "guardrail flow"
IO_RETRIES: dict[str, Any] = {"retries": 2, "retry_delay_seconds": [2, 10]}


@flow(name="guardrails")
def watch_candidate() -> list[str]:
    """Stop the rollout under way if its candidate breaches a guardrail; return why.

    Empty where nothing is rolled out, or nothing is wrong. What stops is in the promotion ledger,
    and people are told.
    """
    rollout = find_candidate()
    if rollout is None:
        get_run_logger().info("no candidate is being rolled out")
        return []
    observed = observe(rollout.version)
    breaches = find_breaches(load_guardrails(), observed)
    create_markdown_artifact(describe(rollout, observed, breaches), key="guardrails")
    if breaches:
        stop_candidate(rollout.version, breaches)
    return breaches


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def find_candidate() -> Rollout | None:
    engine = _open_engine()
    try:
        return find_rollout(open_registry(get_settings().mlflow_tracking_uri, engine))
    finally:
        engine.dispose()


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def observe(version: int) -> Observed:
    """Return what was seen of a candidate since its rollout began."""
    engine = _open_engine()
    try:
        with open_session(engine) as session:
            return observe_candidate(session, version)
    finally:
        engine.dispose()


def stop_candidate(version: int, breaches: list[str]) -> None:
    """Stop first, tell afterwards: a webhook that is away must not keep a candidate going."""
    reason = "; ".join(breaches)
    if stop(version, reason):
        notify(f"the rollout of release {version} was stopped: {reason}")


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def stop(version: int, reason: str) -> bool:
    """Stop the rollout of `version`; False when it is no longer the one that is rolled out."""
    engine = _open_engine()
    try:
        registry = open_registry(get_settings().mlflow_tracking_uri, engine)
        current = find_rollout(registry)
        if current is None or current.version != version:
            return False
        stop_rollout(registry, ACTOR, reason)
        return True
    finally:
        engine.dispose()


def describe(rollout: Rollout, observed: Observed, breaches: list[str]) -> str:
    """Return what was measured beside its limits, as Markdown."""
    lines = [
        f"Release {rollout.version}, {rollout.describe()}: {observed.screenings:,} screenings, "
        + ("; ".join(breaches) or "within its guardrails"),
        "",
        "| measure | value | at most | judged after |",
        "|---|---:|---:|---:|",
    ]
    for guardrail in load_guardrails():
        value = observed.measures.get(guardrail.measure)
        shown = "not measured" if value is None else f"{value:.3g}"
        decisions = guardrail.after_decisions
        after = f"{guardrail.after}" + (f", {decisions} decided" if decisions else "")
        limits = f"{guardrail.maximum:g} | {after}"
        lines.append(f"| {guardrail.measure} | {shown} | {limits} |")
    return "\n".join(lines)


def _open_engine() -> Engine:
    return create_database_engine(get_settings().database_url.get_secret_value())
