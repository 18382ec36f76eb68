"""A public function that raises an error names it in its docstring, or says that it raises."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
ROOMS = ("feature_repo", "flows", "mlruns_config", "monitoring", "serving", "infra")
#: Docstrings of commands are their help, those of routes the API's document: readers of both get
#: errors otherwise, by exit codes and by documented responses.
DECORATED = ("router.", "app.", "flow", "task")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
SCOPES = (*FUNCTIONS, ast.Lambda, ast.ClassDef)


def list_silent_functions(source: str) -> Iterator[str]:
    """Yield the public functions that raise and do not document it."""
    for node in iterate_public(ast.parse(source)):
        is_silent = "rais" not in (ast.get_docstring(node) or "").lower()
        if is_silent and raises(node) and not is_interface(node):
            yield node.name


def iterate_public(
    tree: ast.Module | ast.ClassDef,
) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield from iterate_public(node)
        elif isinstance(node, FUNCTIONS) and not node.name.startswith("_"):
            yield node


def raises(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return True if the function itself, not one inside it, raises an error of its own."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Raise) and node.exc and not is_exit(node.exc):
            return True
        if not isinstance(node, SCOPES):
            waiting.extend(ast.iter_child_nodes(node))
    return False


def is_exit(error: ast.expr) -> bool:
    return ast.unparse(error).startswith("typer.")


def is_interface(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(ast.unparse(one).startswith(DECORATED) for one in function.decorator_list)


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_function_documents_that_it_raises(room: str) -> None:
    silent = [
        f"{path.relative_to(PROJECT)}: {name}"
        for path in sorted((PROJECT / room).rglob("*.py"))
        for name in list_silent_functions(path.read_text(encoding="utf-8"))
    ]

    assert silent == []


@pytest.mark.parametrize(
    ("source", "silent"),
    [
        ("def read(x):\n    raise ValueError('no')", ["read"]),
        (
            "class A:\n    def read(self):\n        '''Return x.'''\n        raise KeyError",
            ["read"],
        ),
        ("def read(x):\n    '''Return x; raises ValueError.'''\n    raise ValueError('no')", []),
        ("def _read(x):\n    raise ValueError('no')", []),
        ("def read(x):\n    try:\n        f()\n    except OSError:\n        raise", []),
        ("@router.get('/')\ndef read(x):\n    raise ValueError('no')", []),
        ("def stop():\n    raise typer.Exit(2)", []),
    ],
)
def test_a_function_that_raises_in_silence_is_found(source: str, silent: list[str]) -> None:
    assert list(list_silent_functions(source)) == silent
