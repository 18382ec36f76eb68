"""What `make run` and `make story` say on the terminal, and how they end."""

import signal
import sys
import time
from types import FrameType
from typing import NoReturn

from rich.console import Console
from rich.markup import escape

from infra.local.stack import LocalStack

console = Console(highlight=False)


def announce(service: str, happened: str) -> None:
    console.print(f"[green]✓[/] {service:10} {happened}", soft_wrap=True)


def fail(message: str) -> NoReturn:
    console.print(f"[red]✗[/] {escape(message)}", soft_wrap=True)
    sys.exit(1)


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
