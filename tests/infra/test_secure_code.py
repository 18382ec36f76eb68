"""Shipped code calls nothing that executes text, weakens a cipher, or trusts any certificate."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
import yaml
from fastapi import FastAPI

from tests.infra.cluster_objects import PROJECT, render

SHIPPED = ("serving", "flows", "feature_repo", "mlruns_config", "monitoring", "infra")
#: Ruff's rules of flake8-bandit: exec, pickle and marshal, weak hashes and ciphers, eval, mktemp,
#: telnet, FTP, unverified TLS, unsafe YAML, shells, wildcards, loose SSH keys.
DANGEROUS = (
    *("S102", "S301", "S302", "S303", "S304", "S305", "S306", "S307", "S312", "S321", "S323"),
    *("S324", "S501", "S502", "S503", "S504", "S505", "S506", "S507", "S508", "S509"),
    *("S602", "S604", "S605", "S609", "S612"),
)
#: Files whose statements contain names of tables, columns or locks: constants of the code.
#: Values are bound parameters there too. A new file is read before it is added.
BUILT_FROM_CONSTANTS = {
    "feature_repo/postgres_reader.py",
    "flows/runtime/locks.py",
    "serving/database/migrations/versions/0008_clinician_override.py",
    "serving/database/migrations/versions/0009_queue_order.py",
    "serving/database/online.py",
    "serving/releases/rollout_evidence.py",
    "serving/screening/recorder.py",
}


def find_uses(folders: tuple[str, ...], rules: tuple[str, ...]) -> dict[str, set[str]]:
    """Return the rules that each file breaks, whatever a `noqa` permits."""
    command = [
        *(str(Path(sys.executable).with_name("ruff")), "check", "--isolated", "--no-cache"),
        *("--ignore-noqa", "--select", ",".join(rules), "--output-format", "json"),
        *folders,
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, check=False)
    assert done.returncode in (0, 1), done.stderr
    found: dict[str, set[str]] = {}
    for one in json.loads(done.stdout):
        path = Path(one["filename"])
        name = path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path
        found.setdefault(name.as_posix(), set()).add(one["code"])
    return found


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("exec(input())", "S102"),
        ("import pickle; pickle.loads(input())", "S301"),
        ("import hashlib; hashlib.md5(b'')", "S324"),
        ("import httpx; httpx.get('https://x', verify=False)", "S501"),
        ("import subprocess; subprocess.run(input(), shell=True)", "S602"),
        ("import yaml; yaml.load(input(), yaml.Loader)", "S506"),
    ],
)
def test_a_dangerous_call_is_found(tmp_path: Path, line: str, rule: str) -> None:
    path = tmp_path / "planted.py"
    path.write_text(f"{line}  # noqa\n")

    assert find_uses((str(path),), DANGEROUS) == {path.as_posix(): {rule}}


def test_shipped_code_uses_no_dangerous_function() -> None:
    assert find_uses(SHIPPED, DANGEROUS) == {}


def test_every_statement_that_is_built_from_text_is_listed() -> None:
    assert set(find_uses(SHIPPED, ("S608",))) == BUILT_FROM_CONSTANTS


#: Pseudo-random numbers: pauses between retries, and people of the rehearsal.
RANDOM_WITHOUT_SECRETS = {"flows/sources/bulk/access.py", "infra/local/story/people.py"}
#: Names of SQL that psycopg composes, whose `format` quotes each part.
COMPOSED = ("options", "query", "statement")
READS_PATTERNS = ("compile", "search", "match", "fullmatch", "split", "sub", "subn", "findall")


def list_calls(source: str) -> Iterator[tuple[ast.Attribute, ast.Call]]:
    """Yield every call of a method or of a module's function."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node.func, node


def is_constant(node: ast.expr) -> bool:
    """Return True for a literal, a constant by its name, or text of these and escaped parts."""
    if isinstance(node, ast.JoinedStr):
        parts = (part.value for part in node.values if isinstance(part, ast.FormattedValue))
        return all(is_constant(part) for part in parts)
    if isinstance(node, ast.Subscript):
        return is_constant(node.value)
    if isinstance(node, ast.Call):
        return ast.unparse(node.func) == "re.escape"
    return isinstance(node, ast.Constant) or (isinstance(node, ast.Name) and node.id.isupper())


def find_patterns_from_input(source: str) -> list[str]:
    return [
        ast.unparse(call)
        for function, call in list_calls(source)
        if ast.unparse(function.value) == "re"
        and function.attr in READS_PATTERNS
        and not is_constant(call.args[0])
    ]


def find_formats_from_input(source: str) -> list[str]:
    """Return calls of str.format, and of relatives, on what is no constant."""
    composes = re.search(r"from psycopg2? import .*\bsql\b", source) is not None
    found = []
    for function, call in list_calls(source):
        text = ast.unparse(function.value)
        is_composed = composes and (text in COMPOSED or text.startswith("sql.SQL("))
        if function.attr in ("format", "format_map") and not is_composed:
            found += [] if text == "pl" or is_constant(function.value) else [ast.unparse(call)]
    return found


def read_shipped() -> dict[str, str]:
    paths = (path for folder in SHIPPED for path in (PROJECT / folder).rglob("*.py"))
    return {path.relative_to(PROJECT).as_posix(): path.read_text("utf-8") for path in paths}


@pytest.mark.parametrize(
    "line", ["re.compile(text)", "re.search(f'{name}.*', text)", "re.sub(given.pattern, '', x)"]
)
def test_a_pattern_from_input_is_found(line: str) -> None:
    assert find_patterns_from_input(line) == [line]


def test_no_pattern_is_built_from_input() -> None:
    found = {path: find_patterns_from_input(text) for path, text in read_shipped().items()}
    assert {path: calls for path, calls in found.items() if calls} == {}


@pytest.mark.parametrize("line", ["given.format(x)", "row['text'].format_map(values)"])
def test_a_format_from_input_is_found(line: str) -> None:
    assert find_formats_from_input(line) == [line]


def test_no_format_is_taken_from_input() -> None:
    found = {path: find_formats_from_input(text) for path, text in read_shipped().items()}
    assert {path: calls for path, calls in found.items() if calls} == {}


def test_secrets_come_from_the_systems_generator() -> None:
    """Ruff's S311 finds Python's pseudo-random numbers, which can be foretold."""
    assert set(find_uses(SHIPPED, ("S311",))) == RANDOM_WITHOUT_SECRETS


def test_every_package_comes_by_name_and_version_from_the_index() -> None:
    """No address, file or other index stands in the lock or among the dependencies."""
    lines = (PROJECT / "requirements.lock").read_text("utf-8").splitlines()
    pins = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]

    assert [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[\w.+!-]+", pin)] == []
    assert [name for name in wanted if "@" in name or "/" in name] == []


def test_images_hold_no_history_of_the_source() -> None:
    """Everything stays out but folders that are named, and none of them is or holds .git."""
    lines = (PROJECT / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    let_in = [rule.removeprefix("!") for rule in rules if rule.startswith("!")]

    assert rules[0] == "*"
    assert not {name for name in let_in if name.startswith(".") or name == "**"}
    assert not [name for name in let_in if (PROJECT / name / ".git").exists()]


@pytest.mark.parametrize("deployment", ["staging", "production"])
def test_no_workload_runs_in_a_debug_mode(deployment: str) -> None:
    texts = [yaml.safe_dump(one) for one in render(deployment)]
    debug = re.compile(
        r"--(?:debug|dev|reload)\b|\bDEBUG\b|\bdebug: true|log.level[=:] ?debug", re.I
    )

    assert [match[0] for text in texts if (match := debug.search(text))] == []


def test_the_api_runs_without_debug_mode() -> None:
    sources = read_shipped()
    switched_on = re.compile(r"\b(?:debug|reload)\s*=\s*True")

    assert [path for path, text in sources.items() if switched_on.search(text)] == []
    assert FastAPI().debug is False
