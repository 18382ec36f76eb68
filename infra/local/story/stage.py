"""What every act of the story stands on: the running stack, the teller, and flow runs."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
from rich.console import Console
from rich.markup import escape
from sqlalchemy import Engine

from infra.local.flow_runs import ask_prefect, create_flow_run, follow, link_flow_run
from infra.local.stack import LocalStack
from mlruns_config.manifest import RELEASE_MODEL
from mlruns_config.pages import locate_version
from mlruns_config.registry.transitions import Registry, open_registry
from serving.database.sessions import create_database_engine

PATIENCE_SECONDS = 120
OPERATOR = "story operator"


class StoryFailedError(RuntimeError):
    """A step had another result than expected; the message names it, and where to look."""


@dataclass(frozen=True)
class Stage:
    """The running stack and its narrator."""

    stack: LocalStack
    console: Console
    engine: Engine
    registry: Registry

    def tell(self, text: str) -> None:
        self.console.print(f"  {escape(text)}", soft_wrap=True)

    def show(self, what: str, where: str) -> None:
        """Point at something to look at."""
        self.console.print(f"    [dim]{what}:[/] [cyan]{where}[/]", soft_wrap=True)

    def check(self, holds: bool, fact: str) -> None:
        """Tell a fact that must hold; raises StoryFailedError where it does not."""
        if not holds:
            raise StoryFailedError(f"this did not come true: {fact}")
        self.console.print(f"  [green]✓[/] {escape(fact)}", soft_wrap=True)

    def run(self, deployment: str, expect: str = "COMPLETED", **parameters: Any) -> str:
        """Run a deployment to its end (or pause), show it, and return its id."""
        return self.watch(create_flow_run(self.stack, deployment, parameters), deployment, expect)

    def watch(self, run_id: str, name: str, expect: str = "COMPLETED") -> str:
        """Follow a flow run to its end; raises StoryFailedError where it ends otherwise."""
        state = follow(self.stack, run_id, self.console)
        link = link_flow_run(self.stack, run_id)
        if state["type"] != expect:
            raise StoryFailedError(f"{name} ended {state['name']}: {state['message']}\n{link}")
        self.show(f"flow run {name}, {state['name']}", link)
        return run_id

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        return ask_prefect(self.stack, method, path, body)

    def wait_until(self, holds: Callable[[], bool], fact: str) -> None:
        """Wait until something has come true, and tell it."""
        until = time.monotonic() + PATIENCE_SECONDS
        while not holds() and time.monotonic() < until:
            self.stack.check_alive()
            time.sleep(0.5)
        self.check(holds(), fact)

    def link_release(self, version: int) -> str:
        return locate_version(RELEASE_MODEL, version, self.stack.url("mlflow"))

    def serves(self, version: int) -> bool:
        """Whether the API answers with a release."""
        answer = httpx.get(f"{self.stack.url('api')}/health/ready", timeout=10, trust_env=False)
        return bool(answer.json()["release"]["version"] == version)


def set_stage(stack: LocalStack, console: Console) -> Stage:
    engine = create_database_engine(stack.environment["DATABASE_URL"])
    uri = stack.environment["MLFLOW_TRACKING_URI"]
    return Stage(stack, console, engine, open_registry(uri, engine))
