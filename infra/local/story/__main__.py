"""`make story`: drift, a challenger, its way to Production and back, an erasure; in minutes.

Everything runs in the real stack (infra/local) in a state folder of its own. Each step is a flow
run in Prefect and shows in MLflow; what is told is checked, and a story that does not come true
ends with exit code 1.
"""

import os
import shutil
import time
from pathlib import Path
from typing import Annotated

import typer

from infra.local.links import print_links
from infra.local.postgres import remove_root_state
from infra.local.processes import ServiceFailedError
from infra.local.stack import PROJECT, LocalStack
from infra.local.terminal import console, fail, open_stack, watch_until_ctrl_c
from mlruns_config.manifest import RELEASE_MODEL
from mlruns_config.pages import locate_model

#: The API looks at the registry every other second here, so that nobody has to wait.
QUICK = {"RELEASE_POLL_SECONDS": "2"}


def tell(
    state: Annotated[Path, typer.Option(help="Where it is kept; what is there is removed.")] = (
        PROJECT / ".mhras" / "story"
    ),
    once: Annotated[bool, typer.Option("--once", help="Stop after the story.")] = False,
) -> None:
    """Tell the story on a stack of its own, then leave it running to be looked at."""
    state = state.resolve()
    remove_root_state(state / "postgres")
    shutil.rmtree(state, ignore_errors=True)
    os.environ.update(QUICK)
    begun = time.monotonic()
    with open_stack(state) as stack:
        _tell_acts(stack, state, begun)
        if not once:
            watch_until_ctrl_c(stack)


def _tell_acts(stack: LocalStack, state: Path, begun: float) -> None:
    # Imported now: feature views take the lake's address from the environment at import.
    os.environ.update(stack.environment)
    from infra.local.story import acts
    from infra.local.story.erasure import erase_somebody
    from infra.local.story.stage import StoryFailedError, set_stage

    stage = set_stage(stack, console)
    try:
        _name_act("1. A release")
        acts.pause_schedules(stage)
        acts.make_first_release(stage, state / "drops" / "first")
        first = acts.find_newest(stage)
        _name_act("2. A month of other people")
        newcomers = acts.let_newcomers_arrive(stage, state / "drops" / "second")
        _name_act("3. Drift, and a challenger")
        version = acts.let_drift_be_found(stage, newcomers)
        acts.show_challenger(stage, version)
        _name_act("4. Shadow, a share of individuals, Production")
        acts.roll_out(stage, version, newcomers)
        _name_act("5. Worse data, and back")
        acts.let_data_go_bad(stage, version, newcomers)
        _name_act("6. An erasure")
        erase_somebody(stage, newcomers, [version])
    except (StoryFailedError, ServiceFailedError) as error:
        fail(str(error))
    finally:
        stage.engine.dispose()
    console.print(f"\n[green]✓[/] the story came true in {time.monotonic() - begun:.0f} s")
    console.print(f"  release {first} is Production again. To look at:")
    stage.show("flow runs", f"{stack.url('prefect')}/runs")
    stage.show("events", f"{stack.url('prefect')}/events")
    stage.show("models and lineage", locate_model(RELEASE_MODEL, stack.url("mlflow")))
    print_links(stack, console)


def _name_act(title: str) -> None:
    console.print(f"\n[bold]{title}[/]")


if __name__ == "__main__":
    typer.run(tell)
