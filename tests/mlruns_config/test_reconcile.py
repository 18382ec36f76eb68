"""A transition that broke off between MLflow and the ledger: it is told, and mended."""

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from mlruns_config.manifest import RELEASE_MODEL
from mlruns_config.registry.reconcile import Productions, compare_productions, reconcile
from mlruns_config.registry.transitions import (
    PromotionFailedError,
    PromotionRefusedError,
    Registry,
    find_production,
    read_ledger,
    roll_back,
)
from tests.fixtures.registry_commands import run_registry_command  # noqa: F401 # fixture
from tests.fixtures.small_registry import (  # noqa: F401 # fixtures
    BrokenClient,
    find_folder,
    get_stage,
    go,
    list_ledger,
    register,
    registry,
    tracking_uri,
)


def end_connections(registry: Registry) -> None:  # noqa: F811
    """End every connection to the ledger's database, as a server that dies does."""
    other = create_engine(registry.engine.url)
    with other.connect() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    other.dispose()


def lose_ledger_row(registry: Registry, version: int, monkeypatch) -> None:  # noqa: F811
    """Promote a version while PostgreSQL dies after MLflow moved and before the commit."""
    move = registry.client.set_registered_model_alias

    def move_and_die(*arguments):
        move(*arguments)
        end_connections(registry)

    with monkeypatch.context() as patch:
        patch.setattr(registry.client, "set_registered_model_alias", move_and_die)
        with pytest.raises(OperationalError):
            go(registry, version)


def test_a_lost_ledger_row_is_told_and_written_again(registry, monkeypatch):  # noqa: F811
    first, second = register(registry), register(registry)
    go(registry, first)
    lose_ledger_row(registry, second, monkeypatch)
    assert compare_productions(registry) == Productions(second, second, first)

    reconcile(registry, "ada", "the database died")
    assert compare_productions(registry).agree
    entry = read_ledger(registry)[-1]
    assert (entry.version, entry.to_stage, entry.result) == (second, "Production", "promoted")
    assert entry.gates == {"auroc": 0.8}
    assert entry.reason == (
        f"the database died (reconciled: MLflow's stage: {second}, its alias: {second}, "
        f"the ledger: {first})"
    )
    assert roll_back(registry, "bob", "bad") == first


def test_what_agrees_is_left_alone(registry):  # noqa: F811
    assert compare_productions(registry) == Productions(None, None, None)
    go(registry, register(registry))
    before = list_ledger(registry)

    assert "agree" in reconcile(registry, "ada", "to be sure")
    assert list_ledger(registry) == before


def test_an_alias_that_mlflow_did_not_move_is_moved(registry, tracking_uri):  # noqa: F811
    first, second = register(registry), register(registry)
    go(registry, first)
    broken = Registry(BrokenClient(tracking_uri), registry.engine, registry.gates)
    with pytest.raises(PromotionFailedError):
        go(broken, second)
    assert compare_productions(registry) == Productions(second, first, first)

    reconcile(registry, "ada", "MLflow broke off")
    assert find_production(registry) == second
    assert compare_productions(registry).agree


def test_an_unrecorded_version_that_fails_its_gates_is_refused(registry, monkeypatch):  # noqa: F811
    first, second = register(registry), register(registry)
    go(registry, first)
    lose_ledger_row(registry, second, monkeypatch)
    run_id = registry.client.get_model_version(RELEASE_MODEL, str(second)).run_id
    registry.client.log_metric(run_id, "auroc", 0.5)

    with pytest.raises(PromotionRefusedError, match="auroc is"):
        reconcile(registry, "ada", "the database died")
    assert list_ledger(registry)[-1] == (second, "Production", "Production", "refused")


def test_a_version_taken_out_of_production_behind_the_ledger_is_recorded(registry):  # noqa: F811
    version = register(registry)
    go(registry, version)
    with pytest.warns(FutureWarning):
        registry.client.transition_model_version_stage(RELEASE_MODEL, str(version), "Archived")
    reconcile(registry, "ada", "somebody clicked in the UI")

    assert compare_productions(registry) == Productions(None, None, None)
    assert list_ledger(registry)[-1] == (version, "Production", "Archived", "promoted")


def test_list_and_show_name_it_and_the_command_mends_it(registry, run, monkeypatch):  # noqa: F811
    version = register(registry)
    lose_ledger_row(registry, version, monkeypatch)
    for command in (["list"], ["show", str(version)]):
        code, output = run(*command)
        assert code == 0
        assert f"MLflow's stage: {version}" in output
        assert "`reconcile` repairs it" in output

    monkeypatch.setattr("mlruns_config.registry.transitions.load_gates", lambda: registry.gates)
    code, output = run("reconcile", "--actor", "ada", "--reason", "the database died")
    assert code == 0, output
    assert "in doubt" not in run("list")[1]
