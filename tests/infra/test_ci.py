"""The workflows for people's own forges: the same on both, and nothing that a laptop cannot run."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.infra.cluster_objects import PROJECT

GITHUB = yaml.safe_load((PROJECT / ".github" / "workflows" / "ci.yml").read_text())
GITLAB = yaml.safe_load((PROJECT / ".gitlab-ci.yml").read_text())
SCRIPTS = sorted([*(PROJECT / "infra").rglob("*.sh"), *(PROJECT / ".ci").iterdir()])
GITLAB_JOBS = {
    name: one for name, one in GITLAB.items() if isinstance(one, dict) and "script" in one
}
#: What a step may be besides make: the packages and programs of the runner, a login, a condition.
ALLOWED = re.compile(r"^(sudo (--preserve-env )?)?(make |\.ci/)|^if \[")
MAKE = re.compile(r"make (?:-C (\w+) )?([a-z-]+(?: [a-z-]+)*)")


def list_github_commands() -> list[tuple[str, str]]:
    return [
        (name, step["run"])
        for name, job in GITHUB["jobs"].items()
        for step in job["steps"]
        if "run" in step
    ]


def list_gitlab_commands() -> list[tuple[str, str]]:
    return [(name, line) for name, job in GITLAB_JOBS.items() for line in job["script"]]


def find_targets(commands: list[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return (folder, target) of every make that a command calls."""
    return {
        (folder, target)
        for _, command in commands
        for folder, targets in MAKE.findall(command)
        for target in targets.split(" ")
    }


def read_targets(folder: str) -> set[str]:
    text = (PROJECT / folder / "Makefile").read_text()
    return set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))


@pytest.mark.parametrize("commands", [list_github_commands(), list_gitlab_commands()])
def test_every_step_calls_a_target_that_is_there(commands: list[tuple[str, str]]) -> None:
    for name, command in commands:
        assert ALLOWED.match(command), f"{name}: {command}"
        for script in re.findall(r"\.ci/\w+", command):
            assert os.access(PROJECT / script, os.X_OK), script
    for folder, target in find_targets(commands):
        assert target in read_targets(folder), target


def test_both_forges_do_the_same() -> None:
    assert set(GITHUB["jobs"]) == set(GITLAB_JOBS)
    assert find_targets(list_github_commands()) == find_targets(list_gitlab_commands())


def test_what_the_guide_asks_of_a_pipeline_is_in_it() -> None:
    targets = {target for _, target in find_targets(list_github_commands())}
    assert targets >= {
        *("lint", "types", "test", "validate", "scan", "images", "sbom", "audit"),
        *("scan-images", "sign-images", "kind-up", "kind-deploy", "kind-test", "test-postgres"),
    }
    # Scans run by the clock too: what is vulnerable is found without a change of ours.
    assert GITHUB[True]["schedule"]
    assert GITHUB["jobs"]["postgres"]["strategy"]["matrix"]["version"][0] == "14"


def test_every_action_image_and_program_is_pinned() -> None:
    for job in GITHUB["jobs"].values():
        assert "latest" not in job["runs-on"]
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"[\w./-]+@v\d[\w.]*", step["uses"]), step["uses"]
    assert ":latest" not in (PROJECT / ".gitlab-ci.yml").read_text()
    for script in ("tools", "kubectl"):
        assert "latest" not in (PROJECT / ".ci" / script).read_text()


@pytest.mark.parametrize(
    "path", sorted([*(PROJECT / "infra").rglob("*.sh"), *(PROJECT / ".ci").iterdir()])
)
def test_every_script_is_one_that_bash_can_read_and_stops_at_an_error(path: Path) -> None:
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "set -euo pipefail" in path.read_text()


@pytest.mark.parametrize("program", ["promtool", "kubectl"])
def test_validation_fails_in_ci_where_a_tool_is_missing(program: str, tmp_path: Path) -> None:
    """Elsewhere it is skipped, and named."""
    test = {
        "promtool": "tests/monitoring/test_alerts.py::test_prometheus_accepts_every_rule",
        "kubectl": "tests/infra/test_cluster_rules.py"
        "::test_postgresql_refuses_plaintext_before_the_operator_s_last_rule_takes_it",
    }[program]
    python = PROJECT / ".venv" / "bin" / "python"
    # Neither test needs the services of conftest.py, which take ten seconds to import.
    options = ["-q", "-rs", "-p", "no:cacheprovider", "--noconftest"]
    command = [str(python), "-m", "pytest", *options, test]
    for ci, code, said in (("true", 1, "CI must have"), ("", 0, "SKIPPED")):
        done = subprocess.run(
            command,
            cwd=PROJECT,
            env={"PATH": str(tmp_path), "HOME": str(tmp_path)} | ({"CI": ci} if ci else {}),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout
        assert said in done.stdout
