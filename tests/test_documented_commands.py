"""Every command of the documents names a target, module, option or deployment that exists."""

import importlib
import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.fixtures.deployments import DECLARED, load_flow

PROJECT = Path(__file__).parents[1]
PATTERNS = (
    "README.md",
    "CONTRIBUTING.md",
    "*/README.md",
    "flows/*/README.md",
    "serving/*/README.md",
    "infra/runbooks/*.md",
)
DOCUMENTS = sorted(path for pattern in PATTERNS for path in PROJECT.glob(pattern))
BLOCK = re.compile(r"^ *```[a-z]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`((?:make|python -m|prefect deployment run) [^`]+)`")
TARGET = re.compile(r"^([a-z][a-z-]*):", re.MULTILINE)
DEPLOYMENTS = {str(one["name"]): one for one in DECLARED}
#: Modules of others, and scripts that read their arguments themselves.
NOT_OURS = ("venv", "http", "pip", "pytest", "mlflow", "build")


def list_commands(path: Path) -> Iterator[str]:
    """Yield the commands in the code blocks and code spans of a document, comments left out."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for block in BLOCK.findall(text) for line in block.splitlines()]
    for line in (*lines, *SPAN.findall(BLOCK.sub("", text))):
        command = line.partition("  #")[0].strip().removeprefix("$ ")
        if re.match(r"(make|python -m|prefect deployment run) ", command):
            yield command


def find_fault(command: str) -> str | None:
    """Return what is wrong with a command, None where all that it names exists."""
    words = shlex.split(command.partition("|")[0].partition(" > ")[0].partition(" && ")[0])
    if words[0] == "make":
        return find_missing_target(words[1:])
    if words[0] == "prefect":
        return find_missing_deployment(words[3:])
    return find_missing_option(words[2], words[3:])


def find_missing_target(words: list[str]) -> str | None:
    folder = words[1] if words[:1] == ["-C"] else "."
    targets = set(TARGET.findall((PROJECT / folder / "Makefile").read_text()))
    asked = [word for word in words[2 if folder != "." else 0 :] if "=" not in word]
    missing = [word for word in asked if word not in targets]
    return f"no target {missing[0]}" if missing else None


def find_missing_deployment(words: list[str]) -> str | None:
    name = words[0].partition("/")[2]
    if name not in DEPLOYMENTS:
        return f"no deployment {words[0]}"
    flow = load_flow(DEPLOYMENTS[name])
    given = [words[place + 1].partition("=")[0] for place, word in enumerate(words) if word == "-p"]
    known = inspect.signature(flow.fn).parameters
    missing = [one for one in given if one not in known]
    return f"no parameter {missing[0]}" if missing else None


def find_missing_option(module: str, words: list[str]) -> str | None:
    if module.partition(".")[0] in NOT_OURS:
        return None
    try:
        command = load_command(module)
    except ModuleNotFoundError:
        return f"no module {module}"
    if command is None:
        return None
    for word in words:
        subcommands = getattr(command, "commands", {})
        if subcommands and not word.startswith("-"):
            if word not in subcommands:
                return f"no command {word} of {module}"
            command = subcommands[word]
    options = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
    given = [word.partition("=")[0] for word in words if word.startswith("--")]
    missing = [one for one in given if one not in options | {"--help"}]
    return f"no option {missing[0]} of {module}" if missing else None


def load_command(module: str) -> Any:
    """Return a module's command line, None where it reads its arguments itself."""
    found = importlib.import_module(module)
    if hasattr(found, "__path__"):
        found = importlib.import_module(f"{module}.__main__")
    app = getattr(found, "app", None)
    if isinstance(app, typer.Typer):
        return typer.main.get_command(app)
    main = getattr(found, "main", None)
    typed = main is not None and inspect.signature(main).parameters
    return typer.main.get_command(make_app(main)) if typed else None


def make_app(main: Any) -> typer.Typer:
    app = typer.Typer(add_completion=False)
    app.command()(main)
    return app


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("make nothing", "no target nothing"),
        ("make -C infra nothing", "no target nothing"),
        ("prefect deployment run x/x", "no deployment x/x"),
        ("prefect deployment run ingestion/ingestion -p nothing=1", "no parameter nothing"),
        ("python -m serving.nothing", "no module serving.nothing"),
        ("python -m serving.tokens nothing", "no command nothing of serving.tokens"),
        ("python -m serving.tokens issue --nothing x", "no option --nothing of serving.tokens"),
    ],
)
def test_a_command_that_does_not_exist_is_found(command: str, fault: str) -> None:
    assert find_fault(command) == fault


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_the_commands_of_a_document_exist(path: Path) -> None:
    faults = {command: find_fault(command) for command in list_commands(path)}
    assert {command: fault for command, fault in faults.items() if fault} == {}


def test_the_documents_hold_commands() -> None:
    assert sum(len(list(list_commands(path))) for path in DOCUMENTS) > 40
