"""The registry's command line, as a shell runs it."""

from datetime import UTC, datetime

import pytest

from mlruns_config.gates import load_gates
from mlruns_config.registry.transitions import find_production, read_ledger
from tests.fixtures.registry_commands import run_registry_command  # noqa: F401 # fixture
from tests.fixtures.small_registry import (  # noqa: F401 # fixtures
    go,
    register,
    registry,
    tracking_uri,
)


def measure(registry, version: int, **metrics: float) -> None:  # noqa: F811
    """Give a release what every reviewed gate asks for, except `metrics`."""
    run_id = registry.client.get_model_version("mhras-risk", str(version)).run_id
    for gate in load_gates():
        bound = gate.minimum if gate.minimum is not None else gate.maximum
        registry.client.log_metric(run_id, gate.metric, metrics.get(gate.metric, bound))


WHY = ["--actor", "ada", "--reason", "looks good"]


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


@pytest.mark.parametrize(
    "command",
    [
        ["promote", "1"],
        ["rollback"],
        ["shadow", "1"],
        ["share", "0.1"],
        ["stop"],
        ["override", "1", "auroc", "--until", "2026-01-01"],
    ],
)
@pytest.mark.parametrize("words", [["--actor", "ada"], ["--reason", "x"], []])
def test_a_change_needs_who_and_why(run, command, words):
    code, output = run(*command, *words)

    assert code == 2
    assert "Missing option" in output


def test_a_blank_reason_is_no_reason(run):
    code, output = run("promote", "1", "--actor", "ada", "--reason", "  ")
    assert (code, output) == (1, "--reason is empty: the ledger needs it\n")


def test_a_refusal_says_why_and_fails(run, registry):  # noqa: F811
    version = register(registry)
    measure(registry, version, auroc_low=0.5)
    code, output = run("promote", str(version), *WHY)

    assert code == 1
    assert "auroc_low is 0.5, at least 0.65 is needed" in output


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
    run_id = registry.client.get_model_version("mhras-risk", str(version)).run_id
    registry.client.log_metric(run_id, "auroc_low", 0.8)
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


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["shadow", "9"], "no version 9"),
        (["share", "0.1"], "no candidate"),
        (["stop"], "no candidate"),
        (["override", "9", "auroc", "--until", "2026-01-01"], "no version 9"),
    ],
)
def test_a_refused_step_says_why_and_fails(run, command, words):
    code, output = run(*command, *WHY)
    assert code == 1
    assert words in output


def test_a_candidate_is_rolled_out_shown_and_stopped(run, registry):  # noqa: F811
    version = register(registry)
    measure(registry, version)
    go(registry, version, "Staging")

    assert run("shadow", str(version), *WHY) == (0, f"mhras-risk {version} scores in shadow\n")
    assert "candidate (shadow)" in run("list")[1]
    code, output = run("share", "0.25", *WHY)
    assert code == 0
    assert f"mhras-risk {version} answers for 0.25 of individuals\n" in output
    assert "candidate (traffic 0.25)" in run("list")[1]
    assert "candidate (traffic 0.25)" in run("show", str(version))[1]
    assert run("stop", *WHY) == (0, f"mhras-risk {version} is no longer rolled out\n")
    assert "candidate" not in run("list")[1]


def test_an_override_lets_a_failing_release_through_and_is_shown(run, registry):  # noqa: F811
    version = register(registry)
    measure(registry, version, auroc_low=0.5)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    code, output = run("override", str(version), "auroc_low", "--until", today, *WHY)

    words = f"gate auroc_low overridden by ada until {today}"
    assert (code, output) == (0, f"mhras-risk {version}: {words}\n")
    assert "overridden by ada" in run("show", str(version))[1]
    assert run("promote", str(version), *WHY)[0] == 0
    assert find_production(registry) == version
