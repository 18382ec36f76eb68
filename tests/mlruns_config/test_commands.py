"""The registry's command line, as a shell runs it."""

import pytest
from typer.testing import CliRunner

from mlruns_config.commands import app
from mlruns_config.registry import find_production
from tests.mlruns_config.test_registry import (  # noqa: F401 # fixtures
    go,
    read_ledger,
    register,
    registry,
    tracking_uri,
)

WHY = ["--actor", "ada", "--reason", "looks good"]


@pytest.fixture
def run(registry, monkeypatch):  # noqa: F811
    """Run the command line against the test's registry; return (exit code, output)."""
    url = registry.engine.url.render_as_string(hide_password=False)
    # As the deployment guide writes it, without the driver.
    monkeypatch.setenv("DATABASE_URL", url.replace("postgresql+psycopg2", "postgresql"))

    def run_command(*arguments: str) -> tuple[int, str]:
        found = CliRunner().invoke(app, list(arguments))
        return found.exit_code, found.output

    return run_command


@pytest.mark.parametrize("missing", ["DATABASE_URL", "MLFLOW_TRACKING_URI"])
def test_a_missing_address_is_named_with_an_example(run, monkeypatch, missing):
    monkeypatch.delenv(missing)
    code, output = run("list")

    assert code == 1
    assert f"{missing} is not set (for example: " in output


def test_an_address_that_is_none_is_refused_without_being_shown(run, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "a secret")
    code, output = run("list")

    assert code == 1
    assert "DATABASE_URL is not a database's address" in output
    assert "a secret" not in output


@pytest.mark.parametrize("command", [["promote", "1"], ["rollback"]])
@pytest.mark.parametrize("words", [["--actor", "ada"], ["--reason", "x"], []])
def test_a_change_needs_who_and_why(run, command, words):
    code, output = run(*command, *words)

    assert code == 2
    assert "Missing option" in output


def test_a_blank_reason_is_no_reason(run):
    code, output = run("promote", "1", "--actor", "ada", "--reason", "  ")
    assert (code, output) == (1, "--reason is empty: the ledger needs it\n")


def test_a_refusal_says_why_and_fails(run, registry):  # noqa: F811
    version = register(registry, auroc=0.5)
    code, output = run("promote", str(version), *WHY)

    assert code == 1
    assert "auroc is 0.5, at least 0.65 is needed" in output


def test_an_unknown_version_is_not_shown(run):
    assert run("show", "12") == (1, "mhras-risk has no version 12\n")


def test_a_rollback_without_an_earlier_release_is_refused(run):
    code, output = run("rollback", *WHY)
    assert (code, output) == (1, "mhras-risk has no earlier Production version\n")


def test_a_release_is_put_to_staging_and_listed(run, registry):  # noqa: F811
    version = register(registry)
    code, output = run("promote", str(version), "--to", "Staging", *WHY)

    assert (code, output) == (0, f"mhras-risk {version} is in Staging\n")
    assert "Staging" in run("list")[1]
    assert read_ledger(registry)[-1].actor == "ada"


def test_a_release_is_shown_with_members_gates_and_ledger(run, registry):  # noqa: F811
    version = register(registry)
    go(registry, version)
    code, output = run("show", str(version))

    assert code == 0
    for words in ("mhras-lightgbm", "auroc", "0.8", "passed", "failed", "promoted", "a test"):
        assert words in output


def test_a_rollback_goes_back(run, registry):  # noqa: F811
    first, second = register(registry), register(registry)
    go(registry, first)
    go(registry, second)
    code, output = run("rollback", *WHY)

    assert (code, output) == (0, f"mhras-risk {first} is in Production again\n")
    assert find_production(registry) == first
    assert "production" in run("list")[1]
