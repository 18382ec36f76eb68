"""The terminal of `make run` and `make story`: what they print, how they start and end."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console
from rich.markup import escape

from infra.local.postgres import PostgresStartError
from infra.local.processes import ServiceFailedError
from infra.local.stack import LocalStack, start_stack

console = Console(highlight=False)


def announce(service: str, happened: str) -> None:
    console.print(f"[green]✓[/] {service:10} {happened}", soft_wrap=True)


def fail(message: str) -> NoReturn:
    console.print(f"[red]✗[/] {escape(message)}", soft_wrap=True)
    sys.exit(1)


@contextmanager
def open_stack(state: Path) -> Iterator[LocalStack]:
    """Start the stack of a state, and stop it at the end; Ctrl-C and SIGTERM end it too.

    Exits with code 1 when a service fails to start or ends meanwhile.
    """
    end_like_ctrl_c_on_sigterm()
    begun = time.monotonic()
    try:
        stack = start_stack(state, announce)
    except (ServiceFailedError, PostgresStartError) as error:
        fail(str(error))
    announce("stack", f"healthy after {time.monotonic() - begun:.0f} s")
    try:
        yield stack
    except ServiceFailedError as error:
        fail(str(error))
    except KeyboardInterrupt:
        console.print()
    finally:
        console.print("[dim]stopping[/]")
        stack.stop()


def end_like_ctrl_c_on_sigterm() -> None:
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def watch_until_ctrl_c(stack: LocalStack) -> None:
    """Look every second whether all services live; raises ServiceFailedError."""
    console.print("\nCtrl-C stops everything.")
    while True:
        time.sleep(1)
        stack.check_alive()
