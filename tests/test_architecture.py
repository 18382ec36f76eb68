"""The rooms of the project: what lies where, and who may import whom (design, section 2)."""

import ast
import subprocess
from collections.abc import Collection, Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
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
#: Packages of serving/, and which of its packages each may import. `settings`, `errors` and
#: `roles` may be imported by all and import no other module of serving (ADR 28).
SERVING_PACKAGES: dict[str, set[str]] = {
    "database": set(),
    "audit": {"database"},
    "scoring": set(),
    "releases": {"scoring", "database", "audit"},
    "auth": {"database", "audit", "http"},
    "consent": {"database", "audit"},
    "http": {"audit"},
    "screening": {"database", "audit", "scoring", "releases", "consent", "http"},
    "reviews": {"database", "audit", "scoring", "consent", "http", "screening"},
    "predictions": {"database", "audit", "releases", "consent"},
    "fhir": {"database", "audit", "scoring", "consent", "auth", "http", "screening", "reviews"},
    "individuals": {"database", "audit", "consent", "fhir"},
    "compliance": {"database", "audit", "releases", "consent", "reviews"},
}
SERVING_PACKAGES["console"] = {*SERVING_PACKAGES}
SERVING_PACKAGES["routes"] = {*SERVING_PACKAGES} - {"console"}
SERVING_PACKAGES["tokens"] = {"auth", "audit", "database"}
BASE_MODULES = {"settings", "errors", "roles"}
#: What a worker holds, and how routes and pages reach it; below them, above all else.
CONTAINER_MODULES = {"services", "dependencies", "accountability", "queue_metrics"}
WIRING_MODULES = {"app", "__main__", "__init__"}

#: Packages of flows/, lowest first: each may import those before it (ADR 28). The deployed
#: flows beside them import all; no package imports a flow.
FLOW_PACKAGES = (
    *("runtime", "sources", "lake", "quality", "features", "datasets", "models", "evaluation"),
    "simulation",
)

#: The design card, and beside it only the usual files of a repository.
CARD = {*ROOMS, "tests", "prefect.yaml", "pyproject.toml"}
USUAL = {
    *(".ci", ".gitignore", ".dockerignore", ".editorconfig", ".gitattributes", ".github"),
    ".gitlab-ci.yml",
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


def name_module(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def find_imported_modules(source: str, known: Collection[str]) -> set[str]:
    """Return the modules among `known` that a source imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            named = {f"{node.module}.{name.name}" for name in node.names}
            found |= {name if name in known else node.module for name in named}
    return found & set(known)


def list_sources(rooms: Iterable[str] = ROOMS) -> dict[str, str]:
    """Return the source of every module by its dotted name, migrations left out."""
    return {
        name_module(path.relative_to(PROJECT)): path.read_text()
        for room in rooms
        for path in list_modules(room)
        if "versions" not in path.parts
    }


def find_imports_by_module(sources: Mapping[str, str]) -> dict[str, set[str]]:
    return {
        name: find_imported_modules(source, sources.keys()) - {name}
        for name, source in sources.items()
    }


def list_circles(imports: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the cycles among modules or packages."""
    sorter = TopologicalSorter(imports)
    try:
        sorter.prepare()
    except CycleError as error:
        return [error.args[1]]
    return []


def group_by_package(imports: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Return which packages import which; a module at the top of a room stands for itself."""
    packages: dict[str, set[str]] = {}
    for module, imported in imports.items():
        own = ".".join(module.split(".")[:2])
        others = {".".join(name.split(".")[:2]) for name in imported}
        packages[own] = packages.get(own, set()) | others - {own}
    return packages


def list_forbidden_in_serving(module: str, imported: Iterable[str]) -> set[str]:
    """Return what a module of serving imports from a layer it may not."""
    package = module.split(".")[1] if "." in module else "__init__"
    others = {name.split(".")[1] for name in imported if name.startswith("serving.")} - {package}
    if package in WIRING_MODULES:
        return set()
    if package in CONTAINER_MODULES:
        return others & (WIRING_MODULES | {"routes", "console"})
    allowed = BASE_MODULES | SERVING_PACKAGES.get(package, set())
    if package in ("routes", "console"):
        allowed = allowed | CONTAINER_MODULES
    return others - allowed if package not in BASE_MODULES else others - BASE_MODULES


def list_forbidden_in_flows(module: str, imported: Iterable[str]) -> set[str]:
    """Return what a module of a package of flows imports that is no package below it."""
    package = module.split(".")[1] if module.count(".") > 1 else ""
    if not package:
        return set()
    below = FLOW_PACKAGES[: FLOW_PACKAGES.index(package)]
    others = {name.split(".")[1] for name in imported if name.startswith("flows.")}
    return others - {package, *below}


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


FORBIDDEN_IN_ROOM = {"serving": list_forbidden_in_serving, "flows": list_forbidden_in_flows}


@pytest.mark.parametrize("room", FORBIDDEN_IN_ROOM)
def test_a_package_imports_only_the_packages_below_it(room):
    imports = find_imports_by_module(list_sources([room]))
    forbidden = {
        f"{module} imports {name}"
        for module, imported in imports.items()
        for name in FORBIDDEN_IN_ROOM[room](module, imported)
    }

    assert forbidden == set()


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("serving.database.sessions", "from serving.routes.health import router"),
        ("serving.reviews.crisis_overrides", "def late():\n    import serving.app"),
        ("serving.scoring.rules", "from serving.screening.answers import ScreeningAnswer"),
        ("serving.settings", "from serving.audit.signing import KeyRing"),
        ("serving.routes.reviews", "from serving.console import pages"),
        ("serving.services", "from serving.routes import health"),
        ("flows.lake.tables", "from flows.models import member"),
        ("flows.features.tables", "import flows.training"),
    ],
)
def test_an_import_of_a_higher_layer_is_found(module, source):
    room = module.split(".")[0]
    known = {*list_sources([room]), "serving.console"}

    assert len(FORBIDDEN_IN_ROOM[room](module, find_imported_modules(source, known))) == 1


def test_every_package_has_its_layer():
    made = {
        room: {path.parent.name for path in (PROJECT / room).glob("*/__init__.py")}
        for room in ("serving", "flows")
    }

    assert made["serving"] - SERVING_PACKAGES.keys() == set()
    assert made["flows"] - set(FLOW_PACKAGES) == set()


def test_no_modules_import_each_other_in_a_circle():
    assert list_circles(find_imports_by_module(list_sources())) == []


def test_no_packages_import_each_other_in_a_circle():
    assert list_circles(group_by_package(find_imports_by_module(list_sources()))) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("serving.scoring.rules", "serving.scoring.reasons"),
        ("flows.sources.fhir", "flows.sources.contract"),
    ],
)
def test_a_circle_of_siblings_is_found(first, second):
    sources = list_sources()
    sources[first] += f"\nimport {second}\n"
    sources[second] += f"\nimport {first}\n"

    assert list_circles(find_imports_by_module(sources)) != []


def test_a_circle_of_packages_is_found():
    sources = list_sources()
    sources["flows.sources.contract"] += "\nfrom flows.lake import report\n"
    sources["flows.lake.tables"] += "\nfrom flows.sources import contract\n"

    assert list_circles(group_by_package(find_imports_by_module(sources))) != []


def test_the_top_of_serving_is_wiring_only():
    top = {path.stem for path in (PROJECT / "serving").glob("*.py")}

    assert top == BASE_MODULES | CONTAINER_MODULES | WIRING_MODULES


def test_no_test_file_imports_from_another():
    sources = list_sources(["tests"])

    importing = {
        f"{path.relative_to(PROJECT)} imports {name}"
        for path in list_modules("tests")
        for name in find_imported_modules(path.read_text(), sources)
        if name.rpartition(".")[2].startswith(("test_", "conftest"))
    }

    assert importing == set()


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


def test_feast_is_imported_where_it_is_imported_lightly():
    importing = {
        str(path.relative_to(PROJECT))
        for room in ROOMS
        for path in list_modules(room)
        if "feast" in find_imports(path.read_text())
    }

    # Feast itself loads the store, by its name in feature_store.yaml.
    assert importing == {"feature_repo/delta_offline_store.py", "feature_repo/feast_library.py"}


def test_the_top_level_is_the_design_cards():
    top = {path.split("/", 1)[0] for path in list_tracked_files()}

    assert top - CARD - USUAL == set()
    assert CARD - top == set()


def test_no_file_is_an_attic():
    assert [path for path in list_tracked_files() if Path(path).name in ATTICS] == []


def test_every_room_says_what_it_is_for():
    tracked = set(list_tracked_files())

    assert [room for room in ROOMS if f"{room}/README.md" not in tracked] == []
