"""The rooms of the project: what lies where, and who may import whom (design, section 2)."""

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
ROOMS = {
    "feature_repo": set(),
    "mlruns_config": {"feature_repo"},
    "monitoring": {"feature_repo"},
    "serving": {"feature_repo", "mlruns_config", "monitoring"},
    "flows": {"feature_repo", "mlruns_config", "monitoring", "serving"},
    "infra": {"feature_repo", "mlruns_config", "monitoring", "serving", "flows"},
}
#: The design card, and beside it only the usual files of a repository.
CARD = {*ROOMS, "tests", "prefect.yaml", "pyproject.toml"}
USUAL = {
    *(".ci", ".gitignore", ".dockerignore", ".editorconfig", ".gitattributes", ".github"),
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE", "CODEOWNERS"),
    *("Makefile", "requirements.lock", ".pre-commit-config.yaml"),
}
ATTICS = {"utils.py", "util.py", "helpers.py", "common.py", "misc.py"}
#: What training needs and a worker that answers must never load; loaded late or not at all.
TOO_HEAVY_FOR_SERVING = {
    *("torch", "lightning", "pytorch_forecasting", "prefect", "great_expectations"),
    *("evidently", "mlflow", "pandas", "sklearn", "shap", "polars", "deltalake", "flows"),
}


def list_tracked_files() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0 or not listed.stdout:
        pytest.skip("not a git checkout: what belongs to the repository is not known")
    return listed.stdout.splitlines()


def list_modules(room: str) -> list[Path]:
    return sorted((PROJECT / room).rglob("*.py"))


def find_imports(source: str) -> Iterator[str]:
    """Yield the top-level package of every import, also of those inside functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def list_forbidden(room: str, source: str) -> set[str]:
    outside = {*ROOMS, "tests"} - ROOMS[room] - {room}
    return set(find_imports(source)) & outside


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_the_rooms_it_may(room):
    forbidden = {
        f"{path.relative_to(PROJECT)} imports {name}"
        for path in list_modules(room)
        for name in list_forbidden(room, path.read_text())
    }

    assert forbidden == set()


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("serving", "from flows.lake.tables import scan_table"),
        ("feature_repo", "def late():\n    import serving.settings"),
        ("mlruns_config", "import monitoring"),
        ("flows", "from infra.local import stack"),
        ("infra", "from tests.fixtures import ingestion"),
    ],
)
def test_a_forbidden_import_is_found_wherever_it_stands(room, source):
    assert len(list_forbidden(room, source)) == 1


def test_no_module_reaches_for_its_neighbours_by_dots():
    relative = [
        str(path.relative_to(PROJECT))
        for room in ROOMS
        for path in list_modules(room)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.level
    ]

    assert relative == []


def test_serving_names_no_library_that_only_training_needs():
    named = {
        f"{path.relative_to(PROJECT)} imports {name}"
        for path in list_modules("serving")
        for name in set(find_imports(path.read_text())) & TOO_HEAVY_FOR_SERVING
    }

    assert named == set()


def test_the_top_level_is_the_design_cards():
    top = {path.split("/", 1)[0] for path in list_tracked_files()}

    assert top - CARD - USUAL == set()
    assert CARD - top == set()


def test_no_file_is_an_attic():
    assert [path for path in list_tracked_files() if Path(path).name in ATTICS] == []


def test_every_room_says_what_it_is_for():
    tracked = set(list_tracked_files())

    assert [room for room in ROOMS if f"{room}/README.md" not in tracked] == []
