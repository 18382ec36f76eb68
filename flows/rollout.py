"""The rollout flow: takes a candidate one step nearer to Production when the plan allows it.

It looks every quarter of an hour. A step (`mlruns_config/rollout.toml`) ends with enough screenings
scored by both releases, enough hours, and no guardrail breached; the next one goes through the
gates. ADR 26.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from flows.runtime.approval import Approval, ask_for_approval, find_waiting_run
from flows.runtime.notifications import NOTIFICATION_HOOKS
from flows.runtime.releases import (
    MODEL_PROMOTED,
    ROLLOUT_ADVANCED,
    ROLLOUT_STOPPED,
    announce,
    hold_registry,
)
from flows.runtime.retries import IO_RETRIES
from mlruns_config.arms import Rollout
from mlruns_config.guardrails import Observed, find_breaches, load_guardrails
from mlruns_config.registry.rollout import find_rollout, set_traffic_share, stop_rollout
from mlruns_config.registry.transitions import (
    PromotionRefusedError,
    Registry,
    find_production,
    promote,
    read_ledger,
)
from mlruns_config.rollout_plan import Evidence, Step, find_shortfall, load_plan
from serving.database.sessions import open_session
from serving.releases.rollout_evidence import count_scored_by_both, observe_candidate
from serving.settings import get_settings

ACTOR = "rollout flow"
PRODUCTION = "Production"

ApprovedSteps = Literal["none", "production", "every step"]


class RehearsalRefusedError(ValueError):
    """Hours are not waited for in rehearsals only, and production is none."""


@dataclass(frozen=True)
class Position:
    """Where a candidate is on its way, and what has been seen of it there."""

    rollout: Rollout
    step: Step
    evidence: Evidence
    observed: Observed
    #: Share of the next step, None where that is Production.
    next_share: float | None

    @property
    def version(self) -> int:
        return self.rollout.version

    @property
    def next_name(self) -> str:
        return PRODUCTION if self.next_share is None else f"traffic {self.next_share:g}"


@flow(name="rollout", timeout_seconds=600, **NOTIFICATION_HOOKS)
def advance_rollout(approval: ApprovedSteps = "none", rehearsal: bool = False) -> str | None:
    """Take the candidate's next step if its evidence suffices; return the step, None if none.

    A candidate whose next step a gate or a person forbids is stopped. Raises
    RehearsalRefusedError.

    Args:
        approval: Steps that wait for a person: the run is suspended until a person resumes it
            with a name and a reason, and then reads everything again.
        rehearsal: Do not wait for the plan's hours; never in production, and the ledger records it.
    """
    if rehearsal and get_settings().env == "production":
        raise RehearsalRefusedError("MHRAS_ENV is production: the plan's hours are waited for")
    position = locate_candidate()
    if position is None:
        get_run_logger().info("no candidate is being rolled out")
        return None
    waiting = find_obstacle(position, waits_hours=not rehearsal)
    create_markdown_artifact(describe(position, waiting), key="rollout")
    if waiting is not None:
        get_run_logger().info("release %d waits: %s", position.version, waiting)
        return None
    if not needs_approval(position, approval):
        return proceed(position, ACTOR, "rehearsal: hours not waited for" if rehearsal else "")
    return proceed_if_approved(position)


def proceed_if_approved(position: Position) -> str | None:
    """Suspend until a person has decided on this very step, then do what they decided."""
    if (waiting := find_waiting_run()) is not None:
        get_run_logger().info("flow run %s waits for a person already", waiting)
        return None
    decision: Approval = ask_for_approval(position.version, position.next_name)
    words = f"{decision.approver}: {decision.reason}"
    if decision.approve:
        return proceed(position, decision.approver, f"approved by {words}")
    return halt(position, decision.approver, f"not approved by {words}")


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def locate_candidate() -> Position | None:
    """Return where the candidate is and what has been seen of it; None without one."""
    plan = load_plan()
    with hold_registry() as registry:
        rollout = find_rollout(registry)
        if rollout is None:
            return None
        begun = find_beginning(registry, rollout)
        with open_session(registry.engine) as session:
            screenings = count_scored_by_both(session, rollout.version, begun)
            observed = observe_candidate(session, rollout.version)
    evidence = Evidence(screenings, datetime.now(UTC) - begun)
    step, next_share = plan.find_step(rollout), plan.find_next_share(rollout)
    return Position(rollout, step, evidence, observed, next_share)


def find_beginning(registry: Registry, rollout: Rollout) -> datetime:
    """Return when a candidate came to where it is, as the promotion ledger keeps it."""
    steps = [
        entry.created_at
        for entry in read_ledger(registry, rollout.version)
        if entry.result == "promoted" and entry.to_stage == rollout.describe()
    ]
    # Without a row, of a candidate that was not made one by us, its time begins now.
    return max(steps, default=datetime.now(UTC))


def find_obstacle(position: Position, waits_hours: bool) -> str | None:
    """Return why the next step is not taken now, or None."""
    breaches = find_breaches(load_guardrails(), position.observed)
    if breaches:
        return f"the guardrails will stop it: {'; '.join(breaches)}"
    lacking = find_shortfall(position.step, position.evidence, waits_hours)
    return None if lacking is None else f"{position.rollout.describe()} has {lacking}"


def needs_approval(position: Position, approval: ApprovedSteps) -> bool:
    return approval == "every step" or (approval == "production" and position.next_share is None)


def proceed(position: Position, actor: str, note: str) -> str | None:
    """Take the next step and announce it; a gate that forbids it ends the rollout."""
    reason = describe_reason(position, note)
    taken, refusal = take_step(position, actor, reason)
    if refusal is not None:
        return halt(position, ACTOR, f"{position.next_name} was refused: {refusal}")
    if not taken:
        get_run_logger().info("the rollout has changed meanwhile; nothing is done")
        return None
    event = MODEL_PROMOTED if position.next_share is None else ROLLOUT_ADVANCED
    message = f"release {position.version}: {position.rollout.describe()} to {position.next_name}"
    announce(event, position.version, f"{message} ({reason})", reason=reason)
    return position.next_name


def halt(position: Position, actor: str, reason: str) -> str | None:
    """End the rollout and announce it; None where it has changed meanwhile."""
    if not stop_candidate(position.rollout, actor, reason):
        return None
    message = f"the rollout of release {position.version} was stopped: {reason}"
    announce(ROLLOUT_STOPPED, position.version, message, reason=reason)
    return "stopped"


def describe_reason(position: Position, note: str) -> str:
    hours = position.evidence.age / timedelta(hours=1)
    seen = f"{position.evidence.screenings} screenings in {hours:.1f} hours, guardrails clean"
    return f"{seen}; {note}" if note else seen


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def take_step(position: Position, actor: str, reason: str) -> tuple[bool, str | None]:
    """Take the next step if the candidate is still where it was: whether, and a gate's refusal."""
    with hold_registry() as registry:
        if find_rollout(registry) != position.rollout:
            # A retry after an answer that got lost finds the step taken.
            return _has_taken(registry, position), None
        try:
            if position.next_share is None:
                promote(registry, position.version, "Production", actor, reason)
            else:
                set_traffic_share(registry, position.next_share, actor, reason)
        except PromotionRefusedError as refusal:
            return False, str(refusal)
        return True, None


def _has_taken(registry: Registry, position: Position) -> bool:
    if position.next_share is None:
        return find_production(registry) == position.version
    taken = replace(position.rollout, mode="traffic", share=position.next_share)
    return find_rollout(registry) == taken


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def stop_candidate(rollout: Rollout, actor: str, reason: str) -> bool:
    """End a rollout; False when it is no longer the running one."""
    with hold_registry() as registry:
        if find_rollout(registry) != rollout:
            return False
        stop_rollout(registry, actor, reason)
        return True


def describe(position: Position, waiting: str | None) -> str:
    """Return where the candidate is, as Markdown."""
    step, evidence = position.step, position.evidence
    hours = evidence.age / timedelta(hours=1)
    return "\n".join(
        [
            f"Release {position.version}, {position.rollout.describe()}; next: "
            f"{position.next_name}. {waiting or 'The step is complete.'}",
            "",
            "| evidence of this step | has | needs |",
            "|---|---:|---:|",
            f"| screenings by both releases | {evidence.screenings:,} | {step.screenings:,} |",
            f"| hours | {hours:.1f} | {step.hours:g} |",
            "",
            f"Run: {flow_run.get_id() or 'by hand'}",
        ]
    )
