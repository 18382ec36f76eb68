"""The acts of the story, in order. Each does by flow runs and API calls what a person would do."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from flows.runtime.releases import MODEL_RETRAINED
from infra.local.flow_runs import create_flow_run
from infra.local.story.people import Population, find_population, screen, write_people
from infra.local.story.stage import OPERATOR, PATIENCE_SECONDS, Stage, StoryFailedError
from mlruns_config.overrides import apply_overrides
from mlruns_config.registry.rollout import find_rollout
from mlruns_config.registry.transitions import (
    find_overrides,
    find_production,
    find_version,
    list_gates,
    override_gate,
    promote,
    read_ledger,
    read_metrics,
)
from serving.database.sessions import open_session
from serving.database.tables import DriftReport, Prediction

MEMBERS = ["logistic_regression", "lightgbm"]
PEOPLE, NEWCOMERS = 1500, 1000
#: Shift of the newcomers in standard deviations of the general population, some four PHQ-9 points.
MORE_SEVERE = 0.7


def pause_schedules(stage: Stage) -> None:
    """Let nothing but the story start a run, and retraining act without its cool-down."""
    for deployment in stage.ask("POST", "deployments/filter", {}):
        stage.ask("POST", f"deployments/{deployment['id']}/pause_deployment")
    retraining = stage.ask("GET", "deployments/name/retraining/retraining")
    changed = retraining["parameters"] | {"members": MEMBERS, "cool_down_days": 0}
    stage.ask("PATCH", f"deployments/{retraining['id']}", {"parameters": changed})
    stage.tell("Schedules are paused, and the retraining's cool-down of a week is set to nothing:")
    stage.tell("a month passes in minutes. Everything else is real.")


def make_first_release(stage: Stage, folder: Path) -> Population:
    """A cohort lands, is validated, becomes features, a release, and Production."""
    stage.tell(f"{PEOPLE:,} simulated individuals land; a first release is trained on them.")
    identifiers = write_people(folder, PEOPLE, seed=7, begin=0, more_severe=0.0)
    stage.run("pipeline/pipeline", drop=str(folder), members=MEMBERS)
    version = find_newest(stage)
    if find_production(stage.registry) != version:
        override_failing_gates(stage, version)
        promote(stage.registry, version, "Production", OPERATOR, "the story's first release")
    stage.show(f"release {version} in MLflow", stage.link_release(version))
    stage.wait_until(lambda: stage.serves(version), f"release {version} is Production and answers")
    population = find_population(stage, identifiers)
    screen(stage, population, 300, seed=1)
    stage.check(
        count_answers(stage, version) >= 300, "300 screenings of a usual month are answered"
    )
    return population


def find_newest(stage: Stage) -> int:
    model_versions = stage.registry.client.search_model_versions("name='mhras-risk'")
    return max(int(model_version.version) for model_version in model_versions)


def override_failing_gates(stage: Stage, version: int) -> None:
    """Leave out by name what so small a cohort fails by chance; the ledger keeps it."""
    model_version = find_version(stage.registry, version)
    assert model_version is not None
    metrics = read_metrics(stage.registry, model_version)
    for gate in list_gates(stage.registry, version):
        failures, _ = apply_overrides([gate], metrics, find_overrides(stage.registry, version))
        if failures:
            today = datetime.now(UTC).date()
            reason = "a small simulated cohort; no person is treated by it"
            override_gate(stage.registry, version, gate.metric, today, OPERATOR, reason)
            stage.tell(f"Gate failed and overridden by name until tonight: {failures[0]}")


def count_answers(stage: Stage, version: int) -> int:
    with open_session(stage.engine) as session:
        answered = Prediction.release_version == str(version)
        return session.scalar(select(func.count()).where(answered)) or 0


def let_newcomers_arrive(stage: Stage, folder: Path) -> Population:
    """A month of data of other people arrives, and they are screened."""
    stage.tell(f"{NEWCOMERS:,} individuals of another clinic arrive, more severely ill.")
    identifiers = write_people(folder, NEWCOMERS, seed=8, begin=10_000, more_severe=MORE_SEVERE)
    for flow, parameters in (
        ("ingestion", {"drop": str(folder)}),
        ("validation", {}),
        ("features", {}),
    ):
        stage.run(f"{flow}/{flow}", **parameters)
    population = find_population(stage, identifiers)
    screen(stage, population, 700, seed=2)
    return population


def let_drift_be_found(stage: Stage, newcomers: Population) -> int:
    """Two windows breach; the second one's event makes a challenger. Return its version."""
    before = find_newest(stage)
    first = find_drift(stage, 1)
    stage.check(
        find_newest(stage) == before,
        "the retraining trains nothing: two of five reports must breach",
    )
    stage.tell("Windows that overlap count once: the second report's begins where the first ended.")
    screen(stage, newcomers, 700, seed=3)
    find_drift(stage, 2, begin=first.window_end.isoformat())
    stage.check(find_newest(stage) > before, "the retraining makes a challenger")
    return find_newest(stage)


def find_drift(stage: Stage, number: int, **window: str) -> DriftReport:
    """Run the drift flow and the retraining that its event starts; return the report."""
    known_runs = {run["id"] for run in list_retrainings(stage)}
    stage.run("drift/drift", **window)
    report = read_newest_report(stage)
    stage.check(
        report.drift_score >= report.threshold,
        f"report {number}: drift score {report.drift_score:.2f}, {report.threshold:g} acts",
    )
    run_id = wait_for_retraining(stage, known_runs)
    stage.watch(run_id, "retraining, started by the automation on drift.detected")
    return report


def read_newest_report(stage: Stage) -> DriftReport:
    with open_session(stage.engine) as session:
        newest = select(DriftReport).order_by(DriftReport.created_at.desc()).limit(1)
        return session.scalars(newest).one()


def list_retrainings(stage: Stage) -> list[dict[str, Any]]:
    query = {"deployments": {"name": {"any_": ["retraining"]}}}
    runs: list[dict[str, Any]] = stage.ask("POST", "flow_runs/filter", query)
    return [run for run in runs if not run["auto_scheduled"]]


def wait_for_retraining(stage: Stage, known_runs: set[str]) -> str:
    """Return the run that the automation started; raises StoryFailedError without one."""
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        fresh = [run["id"] for run in list_retrainings(stage) if run["id"] not in known_runs]
        if fresh:
            return str(fresh[0])
        time.sleep(1)
    raise StoryFailedError("the automation started no retraining on drift.detected")


def show_challenger(stage: Stage, version: int) -> None:
    """The challenger was compared with Production, is in Staging, and shadows it."""
    model_version = find_version(stage.registry, version)
    assert model_version is not None
    metrics = read_metrics(stage.registry, model_version)
    low = metrics["auroc_vs_production_low"]
    gain = metrics["auroc_vs_production"]
    stage.check(
        model_version.current_stage == "Staging",
        f"release {version} is in Staging: AUROC {gain:+.3f} beside Production on the same "
        f"people (at least {low:+.3f})",
    )
    stage.show(f"release {version} in MLflow", stage.link_release(version))
    stage.wait_until(lambda: was_emitted(stage, MODEL_RETRAINED), f"{MODEL_RETRAINED} is announced")
    rollout = find_rollout(stage.registry)
    stage.check(
        rollout is not None and rollout.describe() == "shadow",
        "it scores in shadow, answering no request",
    )


def was_emitted(stage: Stage, event: str) -> bool:
    answer = stage.ask("POST", "events/filter", {"filter": {"event": {"name": [event]}}})
    return bool(answer["events"])


def roll_out(stage: Stage, version: int, newcomers: Population) -> None:
    """Shadow, a tenth, a half, Production: each on evidence, the last with a person's approval."""
    override_failing_gates(stage, version)
    for number, (screenings, step) in enumerate(
        ((500, "traffic 0.1"), (500, "traffic 0.5"), (1000, "Production"))
    ):
        wait_for_candidate(stage)
        while screenings > 0:
            screen(stage, newcomers, min(500, screenings), seed=10 * number + screenings)
            screenings -= 500
        stage.run("guardrails/guardrails")
        approval = "production" if step == "Production" else "none"
        expect = "PAUSED" if step == "Production" else "COMPLETED"
        run_id = stage.run("rollout/rollout", expect, approval=approval, rehearsal=True)
        if step == "Production":
            approve(stage, run_id)
        last = read_ledger(stage.registry, version)[-1]
        stage.check(
            last.to_stage == step, f"{last.actor}: {last.from_stage} to {step} ({last.reason})"
        )
    stage.wait_until(lambda: stage.serves(version), f"release {version} is Production and answers")


def wait_for_candidate(stage: Stage) -> None:
    """Give the API the time in which it looks at the registry again."""
    time.sleep(2 * float(stage.stack.environment["RELEASE_POLL_SECONDS"]) + 1)


def approve(stage: Stage, run_id: str) -> None:
    """Resume the suspended run with a decision, as the form in Prefect's UI does."""
    stage.tell(
        "The last step waits for a person: Resume in Prefect's UI, with who decides and why."
    )
    decision = {"approve": True, "approver": OPERATOR, "reason": "shadow and traffic look well"}
    stage.ask("POST", f"flow_runs/{run_id}/resume", {"run_input": decision})
    stage.watch(run_id, "rollout, resumed by a person")


def let_data_go_bad(stage: Stage, version: int, newcomers: Population) -> None:
    """A broken release answers every request; the guardrails restore its predecessor."""
    stage.tell(
        "A questionnaire app breaks: it sends the highest answer to every item but the last."
    )
    stage.tell("Scores are not what they were: so high a PHQ-9 has little room for a further rise.")
    screen(stage, newcomers, 300, seed=99, broken=True)
    stage.run("guardrails/guardrails")
    back = find_production(stage.registry)
    assert back is not None
    stage.check(back != version, f"release {version} was rolled back to release {back}")
    last = read_ledger(stage.registry)[-1]
    stage.tell(f"ledger: {last.actor}: {last.reason}")
    stage.wait_until(lambda: stage.serves(back), f"release {back} answers again")


def start_nothing_else(stage: Stage) -> None:
    """The rollout flow finds no running rollout."""
    run_id = create_flow_run(stage.stack, "rollout/rollout", {})
    stage.watch(run_id, "rollout, with nothing to do")
