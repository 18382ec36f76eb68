"""A candidate's way to Production: with evidence only, a step at a time, and never past a gate."""

from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from prefect import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow
from prefect.flow_runs import resume_flow_run
from pydantic import ValidationError

from flows.rollout import ACTOR, RehearsalRefusedError, advance_rollout
from mlruns_config.arms import Rollout
from mlruns_config.guardrails import load_guardrails
from mlruns_config.manifest import RELEASE_MODEL
from mlruns_config.registry.rollout import find_rollout, set_traffic_share
from mlruns_config.registry.transitions import Registry, find_production, read_ledger
from mlruns_config.rollout_plan import Evidence, RolloutPlan, Step, find_shortfall, load_plan
from serving.settings import get_settings
from tests.fixtures.rollouts import candidate, screen
from tests.fixtures.small_registry import list_ledger, registry, tracking_uri
from tests.fixtures.webhook import webhook

__all__ = ["candidate", "registry", "tracking_uri", "webhook"]

SHADOW = Step(share=0, screenings=500, hours=72, reason="a test")


# The plan


def test_every_guardrail_of_a_candidate_can_judge_before_the_first_step() -> None:
    plan = load_plan()
    not_of_decisions = [one.after for one in load_guardrails() if not one.after_decisions]

    assert plan.steps[0].screenings >= max(not_of_decisions)
    assert plan.watch.hours > 0


@pytest.mark.parametrize(
    ("shares", "why"),
    [([0.1, 0.5], "first step is shadow"), ([0, 0.5, 0.5], "must rise"), ([], "at least 1")],
)
def test_a_plan_that_skips_shadow_or_does_not_rise_is_refused(
    shares: list[float], why: str
) -> None:
    steps = [{"share": share, "screenings": 1, "hours": 1, "reason": "x"} for share in shares]
    with pytest.raises(ValidationError, match=why):
        RolloutPlan.model_validate({"step": steps, "watch": {"hours": 1, "reason": "x"}})


@pytest.mark.parametrize(
    ("screenings", "hours", "lacks"),
    [
        (499, 72, "499 of 500 screenings"),
        (500, 71, "71 of 72 hours"),
        (3, 1, "3 of 500 screenings and 1 of 72 hours"),
        (500, 72, None),
    ],
)
def test_a_step_needs_its_screenings_and_its_hours(
    screenings: int, hours: float, lacks: str | None
) -> None:
    evidence = Evidence(screenings, timedelta(hours=hours))
    assert find_shortfall(SHADOW, evidence) == lacks


@pytest.mark.parametrize(
    ("share", "step", "following"),
    [(0, 0, 0.1), (0.1, 0.1, 0.5), (0.3, 0.1, 0.5), (0.5, 0.5, None)],
)
def test_a_share_of_its_own_counts_as_the_step_below_it(
    share: float, step: float, following: float | None
) -> None:
    plan = load_plan()
    rollout = Rollout(4, "traffic" if share else "shadow", share)

    assert plan.find_step(rollout).share == step
    assert plan.find_next_share(rollout) == following


# The flow


def test_without_enough_screenings_or_hours_nothing_moves(
    candidate: int, registry: Registry, webhook: Any
) -> None:
    before = list_ledger(registry)
    assert advance_rollout(rehearsal=True) is None  # no screening yet
    screen(registry, candidate, shift=2.0, screenings=500)

    assert advance_rollout() is None  # enough of them, but the hours have not passed
    assert find_rollout(registry) == Rollout(candidate, "shadow", 0.0)
    assert list_ledger(registry) == before
    assert webhook.messages == []


def test_hours_are_waited_for_in_production(
    candidate: int, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MHRAS_ENV", "production")
    get_settings.cache_clear()
    with pytest.raises(RehearsalRefusedError):
        advance_rollout(rehearsal=True)


def test_a_candidate_that_breaches_a_guardrail_goes_no_further(
    candidate: int, registry: Registry
) -> None:
    screen(registry, candidate, shift=25.0, screenings=500)

    assert advance_rollout(rehearsal=True) is None
    assert find_rollout(registry) == Rollout(candidate, "shadow", 0.0)


def test_a_gate_that_forbids_the_next_step_ends_the_rollout(
    candidate: int, registry: Registry, webhook: Any
) -> None:
    run_id = registry.client.get_model_version(RELEASE_MODEL, str(candidate)).run_id
    registry.client.log_metric(run_id, "auroc", 0.5, step=1)
    screen(registry, candidate, shift=2.0, screenings=500)

    assert advance_rollout(rehearsal=True) == "stopped"
    assert find_rollout(registry) is None
    assert "auroc is 0.5" in read_ledger(registry)[-1].reason
    assert any("was stopped: traffic 0.1 was refused" in one for one in webhook.messages)


def test_with_evidence_it_goes_all_the_way_a_step_at_a_time(
    candidate: int, registry: Registry, webhook: Any
) -> None:
    taken = []
    for screenings in (500, 500, 1000):
        screen(registry, candidate, shift=2.0, screenings=screenings)
        taken.append(advance_rollout(rehearsal=True))
        assert advance_rollout(rehearsal=True) is None  # the next step needs its own evidence

    assert taken == ["traffic 0.1", "traffic 0.5", "Production"]
    assert find_production(registry) == candidate
    assert find_rollout(registry) is None
    steps = [one for one in read_ledger(registry, candidate) if one.actor == ACTOR]
    assert [one.to_stage for one in steps] == taken
    assert all("screenings in" in one.reason and "rehearsal" in one.reason for one in steps)
    told = [one for one in webhook.messages if f"release {candidate}: " in one]
    assert len(told) == 3
    assert "traffic 0.5 to Production" in told[-1]


# A person's word


@pytest.fixture
def deployed(candidate: int, registry: Registry) -> FlowRun:
    """A run of a deployment that asks for approval, about a candidate with enough evidence."""
    screen(registry, candidate, shift=2.0, screenings=500)
    return schedule_run()


def schedule_run() -> FlowRun:
    with get_client(sync_client=True) as client:
        flow_id = client.create_flow(advance_rollout)
        deployment_id = client.create_deployment(flow_id, name="rollout")
        return client.create_flow_run_from_deployment(
            deployment_id, parameters={"approval": "every step", "rehearsal": True}
        )


def execute(run: FlowRun) -> Any:
    """Do what a worker does with a run that is due, in this process."""
    with get_client(sync_client=True) as client:
        due = client.read_flow_run(run.id)
    with suppress(Pause):
        run_flow(advance_rollout, flow_run=due, parameters=due.parameters, return_type="state")
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run.id).state


def test_a_step_waits_for_a_person_and_is_taken_in_their_name(
    deployed: FlowRun, candidate: int, registry: Registry, webhook: Any
) -> None:
    assert execute(deployed).name == "Suspended"
    assert find_rollout(registry) == Rollout(candidate, "shadow", 0.0)
    assert execute(schedule_run()).is_completed()  # the schedule's next run asks nobody again
    assert len([one for one in webhook.messages if "waits for a person" in one]) == 1

    resume_flow_run(deployed.id, {"approve": True, "approver": "ada", "reason": "looks well"})
    assert execute(deployed).is_completed()
    assert find_rollout(registry) == Rollout(candidate, "traffic", 0.1)
    entry = read_ledger(registry, candidate)[-1]
    assert entry.actor == "ada"
    assert "approved by ada: looks well" in entry.reason


def test_what_a_person_declines_is_rolled_out_no_further(
    deployed: FlowRun, candidate: int, registry: Registry
) -> None:
    execute(deployed)
    resume_flow_run(deployed.id, {"approve": False, "approver": "ada", "reason": "too early"})

    execute(deployed)
    assert find_rollout(registry) is None
    assert "not approved by ada: too early" in read_ledger(registry, candidate)[-1].reason


def test_an_approval_of_one_step_is_none_of_another(
    deployed: FlowRun, candidate: int, registry: Registry
) -> None:
    execute(deployed)
    set_traffic_share(registry, 0.1, "grace", "somebody was faster")
    screen(registry, candidate, shift=2.0, screenings=500)
    resume_flow_run(deployed.id, {"approve": True, "approver": "ada", "reason": "looks well"})

    assert execute(deployed).name == "Suspended"  # it asks again, for traffic 0.5
    assert find_rollout(registry) == Rollout(candidate, "traffic", 0.1)
