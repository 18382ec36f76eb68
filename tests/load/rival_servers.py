"""Other servers of models, with the release's own LightGBM trees and nothing else.

MLServer needs older packages than MHRAS, so it gets an environment of its own below the
benchmark's state, made once.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from infra.local.ports import choose_port
from infra.local.processes import ManagedProcess, start_process, wait_until_healthy
from infra.local.stack import PROJECT, LocalStack

MLSERVER = "1.7.1"


@dataclass(frozen=True)
class SavedTrees:
    """MLflow's folder of a model, its text, and requests for each server, one a line."""

    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "mlflow"

    @property
    def text(self) -> Path:
        return self.folder / "trees.bst"

    @property
    def invocations(self) -> Path:
        return self.folder / "invocations.jsonl"

    @property
    def inferences(self) -> Path:
        return self.folder / "inferences.jsonl"


Serving = tuple[ManagedProcess, int, Path]


def save_trees(stack: LocalStack, folder: Path) -> SavedTrees:
    """Save the Production release's trees as each server wants them, with requests."""
    trees = SavedTrees(folder / "trees")
    trees.folder.mkdir()
    script = PROJECT / "tests" / "load" / "save_trees.py"
    command = [sys.executable, str(script), str(trees.folder)]
    environment = stack.environment | {"PYTHONPATH": str(PROJECT)}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return trees


@contextmanager
def run_mlflow_serve(stack: LocalStack, trees: SavedTrees) -> Iterator[Serving]:
    """Serve trees with MLflow's scoring server."""
    port = choose_port(18100)
    programs = Path(sys.executable).parent
    serve = [str(programs / "mlflow"), "models", "serve", "-m", str(trees.model)]
    serve += ["--env-manager", "local", "-p", str(port)]
    environment = stack.environment | {"PATH": f"{programs}:{os.environ['PATH']}"}
    server = start_process("bench-mlflow", serve, environment, stack.state)
    try:
        wait_until_healthy(server, f"http://127.0.0.1:{port}/ping")
        yield server, port, trees.invocations
    finally:
        server.stop()


@contextmanager
def run_mlserver(stack: LocalStack, trees: SavedTrees) -> Iterator[Serving]:
    """Serve trees with MLServer in one process, as fast as it is: without a pool of workers."""
    programs, port = install_mlserver(stack.state / "mlserver"), choose_port(18200)
    settings = {"host": "127.0.0.1", "http_port": port, "parallel_workers": 0, "debug": False}
    settings |= {"grpc_port": choose_port(18300), "metrics_port": choose_port(18400)}
    model = {"name": "trees", "implementation": "mlserver_lightgbm.LightGBMModel"}
    for name, content in (
        ("settings.json", settings),
        ("model-settings.json", model | {"parameters": {"uri": str(trees.text)}}),
    ):
        (trees.folder / name).write_text(json.dumps(content))
    serve = [str(programs / "mlserver"), "start", str(trees.folder)]
    server = start_process("bench-mlserver", serve, dict(os.environ), stack.state)
    try:
        wait_until_healthy(server, f"http://127.0.0.1:{port}/v2/health/ready")
        yield server, port, trees.inferences
    finally:
        server.stop()


def install_mlserver(folder: Path) -> Path:
    """Return the programs of an environment with MLServer, which is made where it is missing."""
    programs = folder / "bin"
    if not (programs / "mlserver").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        wanted = [f"mlserver=={MLSERVER}", f"mlserver-lightgbm=={MLSERVER}"]
        wanted.append(f"lightgbm=={version('lightgbm')}")
        install = [str(programs / "python"), "-m", "pip", "install", "--quiet", *wanted]
        subprocess.run(install, check=True)
    return programs


Run = Callable[[LocalStack, SavedTrees], AbstractContextManager[Serving]]

RIVALS: dict[str, Run] = {
    "mlflow models serve": run_mlflow_serve,
    f"MLServer {MLSERVER}": run_mlserver,
}
