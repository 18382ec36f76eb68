"""Runbooks name commands, files and objects that exist, and bring back what they take away."""

import importlib.util
import re
from pathlib import Path

import pytest

from tests.infra.cluster_objects import PROJECT, find, render

RUNBOOKS = PROJECT / "infra" / "runbooks"
EACH = sorted(RUNBOOKS.glob("*.md"))
OTHERS = [PROJECT / "infra" / name for name in ("README.md", "DATABASE.md", "storage/README.md")]
each_runbook = pytest.mark.parametrize("path", EACH, ids=lambda path: path.stem)
each_page = pytest.mark.parametrize("path", [*EACH, *OTHERS], ids=lambda path: path.stem)
PATH = re.compile(r"\b((?:infra|tests|monitoring|serving|mlruns_config)/[\w./-]+\w)")
#: What names a place only a site has.
NOT_OURS = ("infra/.env",)


@each_runbook
def test_what_is_scaled_to_zero_is_scaled_up_again(path: Path) -> None:
    """An HPA never starts a deployment that stands at zero."""
    text = path.read_text()
    down, up = text.rfind("--replicas=0"), text.rfind("--replicas=3")
    assert down <= up
    assert "kubectl delete hpa" not in text


@each_page
def test_every_module_that_is_run_can_be_found(path: Path) -> None:
    for name in set(re.findall(r"python -m ([\w.]+)", path.read_text())):
        if name.startswith(("infra", "serving", "flows", "mlruns_config", "monitoring", "tests")):
            assert importlib.util.find_spec(name), name


@each_page
def test_every_file_of_the_project_that_is_named_exists(path: Path) -> None:
    named = set(
        re.findall(
            r"\b((?:infra|tests|monitoring|serving|mlruns_config)/[\w./-]+\w)", path.read_text()
        )
    )
    for one in named - set(NOT_OURS):
        assert (PROJECT / one).exists(), one


@each_page
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", path.read_text()):
        assert (path.parent / target).exists(), target


@each_page
def test_every_make_target_that_is_named_exists(path: Path) -> None:
    targets = set(
        re.findall(r"^([a-z-]+):", (PROJECT / "infra/Makefile").read_text(), re.MULTILINE)
    )
    for line in re.findall(r"make -C infra ((?:[a-z-]+ ?)+)", path.read_text()):
        for target in line.split():
            assert target in targets, target


@each_runbook
def test_every_object_that_kubectl_is_asked_for_exists(path: Path) -> None:
    known = {
        f"{one['kind'].lower()}/{one['metadata']['name']}"
        for one in (*render("production"), *render("restore"))
    }
    known |= {name.replace("deployment/", "deploy/") for name in known}
    named = re.findall(r"(?:(?:deploy|deployment|statefulset|cronjob)/[\w-]+)", path.read_text())
    for one in set(named):
        assert one in known, one


@each_runbook
def test_jobs_are_named_with_their_release(path: Path) -> None:
    (release,) = find("production", "ConfigMap", "mhras-release")
    for name in re.findall(r"job/(mhras-(?:migration|registration)\S*)", path.read_text()):
        bare = name.rstrip("`;,.")
        assert bare.endswith(("-$RELEASE", "-down")), name
    assert release["data"]["suffix"]


def test_every_runbook_is_in_the_index() -> None:
    index = (RUNBOOKS / "README.md").read_text()
    for path in EACH:
        assert path.stem == "README" or f"({path.name})" in index, path.name
