"""What `make run` shows once the stack is up: the pipeline through Prefect, one screening."""

import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import psycopg2
from rich.console import Console
from rich.markup import escape
from sqlalchemy import any_, func, select

from feature_repo.consent_terms import SCREENING
from infra.local.flow_runs import (
    POLL_SECONDS,
    create_flow_run,
    find_step,
    follow,
    link_flow_run,
)
from infra.local.stack import LocalStack
from serving.auth.tokens import issue_token
from serving.consent.in_force import select_in_force
from serving.database.clock import DATABASE_TIME
from serving.database.sessions import create_database_engine, open_session
from serving.database.tables import Consent
from serving.reviews.queue import PRIORITIES, count_open
from serving.roles import Role

#: The answers of the example: moderate symptoms, nothing on item 9.
EXAMPLE_ANSWERS = {"phq9": [2, 2, 1, 2, 1, 1, 1, 0, 0], "gad7": [2, 1, 2, 1, 0, 1, 1]}
PIPELINE = "pipeline/pipeline"
BATCH = "batch-screening/batch-screening"
BAND_COLOURS = {"low": "green", "moderate": "yellow", "high": "dark_orange", "critical": "red"}
RELEASE_PATIENCE_SECONDS = 60


class PipelineFailedError(RuntimeError):
    """The pipeline failed; the message names the place to look."""


def has_release(stack: LocalStack) -> bool:
    """Return whether the API serves a Production release, once it had a moment to load one.

    A stack that was new at its start had none to load.
    """
    return _wait_for_release(stack, patience=0 if stack.is_new else 15) is not None


def make_release(stack: LocalStack, parameters: dict[str, Any], console: Console) -> None:
    """Run the pipeline; if the gates refuse simulated people's release, again with twice as many.

    Raises PipelineFailedError.
    """
    run_with_more_people(lambda given: run_pipeline(stack, given, console), parameters, console)


def run_with_more_people(
    run: Callable[[dict[str, Any]], bool], parameters: dict[str, Any], console: Console
) -> None:
    """Run once, and if no release of simulated people came of it, once more with twice as many.

    Which people are held out differs from state to state, and of the usual number the gates
    refuse some by chance (tests/load/README). The release of a drop stays refused. `run` returns
    whether its release reached Production.
    """
    if run(parameters) or parameters["drop"] is not None:
        return
    people = 2 * parameters["people"]
    console.print(f"  {people:,} people are simulated: more people narrow the gates' intervals")
    run(parameters | {"people": people})


def run_pipeline(stack: LocalStack, parameters: dict[str, Any], console: Console) -> bool:
    """Run the parent flow as a deployment and follow its steps until it ends.

    Return whether its release reached Production. Raises PipelineFailedError.
    """
    run_id = create_flow_run(stack, PIPELINE, parameters)
    link = link_flow_run(stack, run_id)
    console.print(f"\npipeline: [cyan]{link}[/]", soft_wrap=True)
    state = follow(stack, run_id, console)
    _print_left_out(stack, run_id, console)
    if state["type"] != "COMPLETED":
        raise PipelineFailedError(f"the pipeline ended {state['name']}: {state['message']}\n{link}")
    return _print_promotion(stack, console)


def _print_left_out(stack: LocalStack, run_id: str, console: Console) -> None:
    """Print how many records the run's ingestion quarantined, and where to see them."""
    # Here, not at the top: it imports Prefect, a second that a start without a pipeline is spared.
    from flows.lake.quarantine import describe_counts, read_quarantine

    ingestion = find_step(stack, run_id, "ingestion")
    rows = read_quarantine(stack.environment["LAKE_URL"], ingestion) if ingestion else None
    if rows is not None and rows.height:
        console.print(
            f"[yellow]![/] {rows.height} records quarantined ({describe_counts(rows)}): "
            "[cyan]make quarantine[/] lists file, row and reason",
            soft_wrap=True,
        )


def _print_promotion(stack: LocalStack, console: Console) -> bool:
    """Print the ledger's last entry: the pipeline's release. Return whether it is in Production."""
    row = _fetch_row(
        stack, "SELECT version, to_stage, result, reason FROM promotion_ledger ORDER BY id DESC"
    )
    if row is None:
        return False
    version, stage, result, reason = row
    sign = "[green]✓[/]" if result == "promoted" else "[yellow]![/]"
    outcome = f"release {version} to {stage}: {result} ({reason})"
    console.print(f"{sign} {escape(outcome)}", soft_wrap=True)
    return bool(stage == "Production" and result == "promoted")


def fill_queue(stack: LocalStack, console: Console) -> None:
    """Screen everyone who consents in a first batch, and print how many wait for a clinician.

    Raises PipelineFailedError.
    """
    run_id = create_flow_run(stack, BATCH, {})
    console.print(f"\nfirst batch: [cyan]{link_flow_run(stack, run_id)}[/]", soft_wrap=True)
    state = follow(stack, run_id, console)
    if state["type"] != "COMPLETED":
        raise PipelineFailedError(f"the batch ended {state['name']}: {state['message']}")
    waiting = _count_waiting(stack)
    console.print(f"[green]✓[/] review queue: {', '.join(waiting) or 'empty'}")


def _count_waiting(stack: LocalStack) -> list[str]:
    """Return "12 high" and the like, the most urgent band first."""
    engine = create_database_engine(stack.postgres.url("mhras"))
    try:
        with open_session(engine) as session:
            counts = count_open(session)
    finally:
        engine.dispose()
    by_band = {
        band: sum(count.items for count in counts if count.priority == band) for band in PRIORITIES
    }
    return [f"{items} {band}" for band, items in by_band.items() if items]


def write_curl_line(stack: LocalStack) -> str | None:
    """Return a command that screens a simulated person; its token works for an hour."""
    individual = _choose_individual(stack)
    if individual is None:
        return None
    secret = stack.environment["JWT_SECRET_KEY"]
    token = issue_token(secret, "example", Role.CLINICIAN, timedelta(minutes=60))
    body = json.dumps({"anonymized_id": individual, "survey_data": EXAMPLE_ANSWERS})
    return (
        f"curl -s {stack.url('api')}/screen -H 'Authorization: Bearer {token}' "
        f"-H 'Content-Type: application/json' -d '{body}'"
    )


def screen_example(stack: LocalStack, console: Console) -> None:
    """Screen one consenting individual and print the answer as a clinician would read it.

    Raises PipelineFailedError.
    """
    if _wait_for_release(stack, RELEASE_PATIENCE_SECONDS) is None:
        raise PipelineFailedError(
            f"the API has loaded no release: {stack.url('api')}/health/ready\n"
            "The gates refuse the same data again; more people narrow their intervals. "
            "make run PEOPLE=12000 simulates four times the usual number."
        )
    individual = _choose_individual(stack)
    if individual is None:
        console.print("\nnobody here consents to being screened, so there is no example")
        return
    token = issue_token(
        stack.environment["JWT_SECRET_KEY"], "example", Role.CLINICIAN, timedelta(minutes=5)
    )
    response = httpx.post(
        f"{stack.url('api')}/screen",
        json={"anonymized_id": individual, "survey_data": EXAMPLE_ANSWERS},
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
        trust_env=False,
    )
    if response.is_error:
        raise PipelineFailedError(f"the example screening answered {response.text}")
    _print_answer(response.json(), console)


def _wait_for_release(stack: LocalStack, patience: float) -> int | None:
    until = time.monotonic() + patience
    while True:
        answer = httpx.get(f"{stack.url('api')}/health/ready", timeout=10, trust_env=False).json()
        version: int | None = answer["release"]["version"]
        if version is not None or time.monotonic() > until:
            return version
        time.sleep(POLL_SECONDS)


def _choose_individual(stack: LocalStack) -> str | None:
    """Return the pseudonym of a person who consents to screening with most data types."""
    statement = (
        select(Consent.anonymized_id)
        .where(select_in_force(DATABASE_TIME), any_(Consent.purposes) == SCREENING)
        .order_by(func.cardinality(Consent.data_types).desc(), Consent.anonymized_id)
        .limit(1)
    )
    engine = create_database_engine(stack.postgres.url("mhras"))
    try:
        with engine.connect() as connection:
            return connection.scalar(statement)
    finally:
        engine.dispose()


def _fetch_row(stack: LocalStack, query: str) -> tuple[Any, ...] | None:
    connection = psycopg2.connect(stack.postgres.url("mhras", driver="postgresql"))
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"{query} LIMIT 1")
            return cursor.fetchone()
    finally:
        connection.close()


def _print_answer(answer: dict[str, Any], console: Console) -> None:
    colour = BAND_COLOURS[answer["risk_band"]]
    console.print(f"\n[bold]POST /screen[/] for {answer['anonymized_id'][:8]}… answered:")
    console.print(
        f"  review priority [bold {colour}]{answer['risk_score']:.0f} of 100,"
        f" {answer['risk_band']}[/], confidence {answer['confidence']:.2f},"
        f" needs review: {'yes' if answer['needs_review'] else 'no'}"
    )
    console.print(f"  {escape(answer['summary'])}", soft_wrap=True)
    for reason in answer["reasons"][:5]:
        console.print(f"  · {escape(reason['text'])}", soft_wrap=True)
    console.print(
        "  [dim]It orders human review; it is not a diagnosis and replaces no clinician.[/]"
    )
