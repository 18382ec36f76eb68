"""`make run`: the whole system on one machine, from a drop to an answered screening."""

import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from flows.models.families import FAMILIES, TABULAR_FAMILIES
from infra.local.links import print_console_links, print_links, record_example_consent
from infra.local.postgres import remove_root_state
from infra.local.stack import DROPPED, PROJECT, SIMULATED, LocalStack, is_new_state
from infra.local.terminal import console, fail, open_stack, watch_until_ctrl_c
from infra.local.tour import (
    PipelineFailedError,
    fill_queue,
    has_release,
    make_release,
    screen_example,
    write_curl_line,
)
from serving.screening.requests import EXAMPLE_PATIENT_ID

#: What a first run takes on two cores, the environment included; see the README.
FIRST_RUN = "the first run takes 4 to 9 minutes and 5 GB of disk; the next start, seconds"


def run(
    drop: Annotated[str | None, typer.Option(help="Folder or s3:// prefix of data.")] = None,
    people: Annotated[int, typer.Option(min=100, help="Individuals to simulate.")] = 3000,
    state: Annotated[Path, typer.Option(help="Where everything is kept.")] = PROJECT / ".mhras",
    all_members: Annotated[
        bool, typer.Option("--all-members", help="Train the sequence networks too.")
    ] = False,
    once: Annotated[bool, typer.Option("--once", help="Stop after the screening.")] = False,
    start_only: Annotated[
        bool, typer.Option("--start-only", help="Start what is there, and run nothing.")
    ] = False,
    forget: Annotated[bool, typer.Option("--forget", help="Remove all state, and stop.")] = False,
) -> None:
    """Start everything, make a release if there is none, screen one individual, wait."""
    state = state.resolve()
    if forget:
        remove_root_state(state / "postgres")
        shutil.rmtree(state, ignore_errors=True)
        return
    if drop is not None:
        keep_apart(state, DROPPED, SIMULATED)
    if is_new_state(state):
        console.print(f"[dim]{FIRST_RUN}[/]")
    with open_stack(state) as stack:
        if start_only:
            _print_way_on(stack)
            watch_until_ctrl_c(stack)
            return
        try:
            _show_around(stack, drop, people, all_members, once)
        except PipelineFailedError as error:
            fail(str(error))
        if not once:
            watch_until_ctrl_c(stack)


def keep_apart(state: Path, coming: str, other: str) -> None:
    """Note whose data are about to come into a state; end where it holds the other kind."""
    if (state / other).exists():
        fail(
            f"{state} {other.replace('-', ' ')}, and real people must not be mixed with simulated "
            "ones: `make clean` first, or keep them apart with STATE=folder"
        )
    state.mkdir(parents=True, exist_ok=True)
    (state / coming).touch()


def _show_around(
    stack: LocalStack, drop: str | None, people: int, all_members: bool, once: bool
) -> None:
    released = has_release(stack)
    if drop is None and not released:
        keep_apart(stack.state, SIMULATED, DROPPED)
    if drop is not None or not released:
        members = FAMILIES if all_members else TABULAR_FAMILIES
        parameters = {"drop": drop, "people": people, "members": members}
        if not released:
            print_console_links(stack, console)
        try:
            make_release(stack, parameters, console)
        except PipelineFailedError as error:
            if not released and once:
                raise
            console.print(f"[yellow]![/] {escape(str(error))}", soft_wrap=True)
            if not released:
                # Everything stays up, so that the links above and below lead to the cause.
                console.print("  there is no release yet; correct the drop and run it again")
                _print_way_on(stack)
                return
            console.print("  the release that was there before goes on answering")
    screen_example(stack, console)
    if not released:
        fill_queue(stack, console)
    _print_way_on(stack)


def _print_way_on(stack: LocalStack) -> None:
    if (stack.state / SIMULATED).exists():
        record_example_consent(stack, EXAMPLE_PATIENT_ID)
    print_links(stack, console)
    if (line := write_curl_line(stack)) is not None:
        console.print("\n  screen a person (the token works for an hour):")
        console.print(f"  {escape(line)}", soft_wrap=True, highlight=False)
    console.print("\n  next: [bold]make story[/], a month in minutes")


if __name__ == "__main__":
    typer.run(run)
