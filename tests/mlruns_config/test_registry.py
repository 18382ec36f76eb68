"""Transitions on real MLflow and PostgreSQL: stage, alias and ledger move together or not."""

import json
from datetime import UTC, date, datetime

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError, ProgrammingError

from mlruns_config.gates import COMPARED_WITH, Gate, load_gates
from mlruns_config.manifest import MANIFEST_HASH_TAG, RELEASE_MODEL
from mlruns_config.registry.transitions import (
    PromotionFailedError,
    PromotionRefusedError,
    Registry,
    find_production,
    read_ledger,
    read_manifest,
    roll_back,
)
from tests.fixtures.small_registry import (
    AUROC,
    GRAPH,
    MEMBER,
    BrokenClient,
    find_folder,
    get_stage,
    go,
    list_ledger,
    register,
    registry,
    tracking_uri,
)

__all__ = ["registry", "tracking_uri"]


def test_a_version_nobody_registered_is_refused_and_recorded(registry):
    with pytest.raises(PromotionRefusedError, match="no version 99"):
        go(registry, 99)

    assert list_ledger(registry) == [(99, "unknown", "Production", "refused")]


@pytest.mark.parametrize("auroc", [None, float("nan"), 0.5])
def test_a_release_that_fails_a_gate_stays_where_it_is(registry, auroc):
    version = register(registry, auroc)
    go(registry, version, "Staging")

    with pytest.raises(PromotionRefusedError, match="auroc is"):
        go(registry, version)

    assert get_stage(registry, version) == "Staging"
    assert find_production(registry) is None
    (_, refused) = read_ledger(registry)
    assert (refused.from_stage, refused.result) == ("Staging", "refused")
    assert refused.reason.startswith("a test (mhras-risk")


def test_a_challenger_must_have_been_compared_with_the_release_in_production(registry):
    rival = Gate(
        metric="auroc_vs_production_low",
        minimum=-0.02,
        reason="a test",
        decided=date(2026, 1, 1),
        versus_production=True,
    )
    registry = Registry(registry.client, registry.engine, (AUROC, rival))
    go(registry, first := register(registry))  # nothing is in Production to be compared with
    second = register(registry)
    run_id = registry.client.get_model_version(RELEASE_MODEL, str(second)).run_id
    for metric, value in {rival.metric: 0.01, COMPARED_WITH: first + 7}.items():
        registry.client.log_metric(run_id, metric, value)

    with pytest.raises(PromotionRefusedError, match="compare it with Production"):
        go(registry, second)
    assert find_production(registry) == first

    registry.client.log_metric(run_id, COMPARED_WITH, first, step=1)
    go(registry, second)
    assert find_production(registry) == second


def test_a_release_with_an_unknown_member_is_refused(registry):
    version = register(registry, member_version=7)

    with pytest.raises(PromotionRefusedError, match=f"{MEMBER} has no version 7"):
        go(registry, version)
    assert list_ledger(registry)[-1][-1] == "refused"


def test_a_release_without_its_manifest_is_refused(registry):
    version = register(registry)
    (find_folder(registry, RELEASE_MODEL, version) / "release" / "release.json").unlink()

    with pytest.raises(PromotionRefusedError, match="manifest cannot be read"):
        go(registry, version)


def test_a_release_with_a_tampered_artifact_is_refused(registry):
    version = register(registry)
    graph = find_folder(registry, MEMBER, 1) / "member" / "model.onnx"
    graph.write_text(GRAPH + " and a little more")

    with pytest.raises(PromotionRefusedError, match=f"{MEMBER} 1: artifact model.onnx is not the"):
        go(registry, version)
    assert find_production(registry) is None
    assert list_ledger(registry) == [(version, "None", "Production", "refused")]


def test_a_release_whose_artifact_is_gone_is_refused(registry):
    version = register(registry)
    (find_folder(registry, MEMBER, 1) / "member" / "model.onnx").unlink()

    with pytest.raises(PromotionRefusedError, match=r"artifact model\.onnx cannot be read"):
        go(registry, version)


def test_a_release_whose_manifest_was_changed_is_refused(registry):
    version = register(registry)
    manifest = find_folder(registry, RELEASE_MODEL, version) / "release" / "release.json"
    manifest.write_text(manifest.read_text().replace('"intercept":0', '"intercept":9'))

    with pytest.raises(PromotionRefusedError, match="manifest is not the one"):
        go(registry, version)


def test_a_release_without_a_registered_hash_is_refused(registry):
    version = register(registry)
    registry.client.delete_model_version_tag(RELEASE_MODEL, str(version), MANIFEST_HASH_TAG)

    with pytest.raises(PromotionRefusedError, match=r"manifest\.sha256 is missing"):
        go(registry, version)


def test_a_failing_subgroup_keeps_a_release_out_of_production(registry):
    version = register(registry)
    run_id = registry.client.get_model_version(RELEASE_MODEL, str(version)).run_id
    registry.client.log_metric(run_id, "worst_group_auroc_high", 0.51)
    (worst,) = [gate for gate in load_gates() if gate.metric == "worst_group_auroc_high"]

    with pytest.raises(PromotionRefusedError, match=r"worst_group_auroc_high is 0\.51"):
        go(Registry(registry.client, registry.engine, (worst,)), version)
    assert list_ledger(registry)[-1][-1] == "refused"


def test_nobody_rolls_back_to_a_tampered_release(registry):
    first, second = register(registry), register(registry)
    go(registry, first)
    go(registry, second)
    manifest = find_folder(registry, RELEASE_MODEL, first) / "release" / "release.json"
    manifest.write_text(manifest.read_text() + " ")

    with pytest.raises(PromotionRefusedError, match="manifest is not the one"):
        roll_back(registry, "bob", "scores shifted")
    assert find_production(registry) == second


def test_without_a_ledger_nothing_moves(registry):
    version = register(registry)
    with registry.engine.begin() as connection:
        connection.execute(text("ALTER TABLE promotion_ledger RENAME TO elsewhere"))

    with pytest.raises(ProgrammingError):
        go(registry, version)
    assert get_stage(registry, version) == "None"
    assert find_production(registry) is None


def test_without_a_database_nothing_moves(registry):
    version = register(registry)
    nowhere = create_engine("postgresql+psycopg2://nobody:x@127.0.0.1:9/nothing")

    with pytest.raises(OperationalError):
        go(Registry(registry.client, nowhere, registry.gates), version)
    assert get_stage(registry, version) == "None"


def test_a_transition_that_mlflow_breaks_off_is_recorded_as_failed(registry, tracking_uri):
    version = register(registry)
    broken = Registry(BrokenClient(tracking_uri), registry.engine, registry.gates)

    with pytest.raises(PromotionFailedError, match="did not move mhras-risk"):
        go(broken, version)
    assert list_ledger(registry) == [(version, "None", "Production", "failed")]

    go(registry, version)  # and the next attempt mends it
    assert find_production(registry) == version


def test_an_unreachable_registry_is_not_an_empty_one(registry, monkeypatch):
    for variable in ("MAX_RETRIES", "BACKOFF_FACTOR"):
        monkeypatch.setenv(f"MLFLOW_HTTP_REQUEST_{variable}", "0")
    away = Registry(MlflowClient("http://127.0.0.1:9"), registry.engine, registry.gates)

    with pytest.raises(MlflowException, match="Connection refused"):
        find_production(away)
    with pytest.raises(MlflowException, match="Connection refused"):
        go(away, 1)


def test_a_promotion_sets_stage_alias_and_ledger(registry):
    version = register(registry)
    moved = go(registry, version)

    assert moved.current_stage == "Production"
    assert find_production(registry) == version
    (entry,) = read_ledger(registry)
    assert (entry.actor, entry.reason, entry.result) == ("ada", "a test", "promoted")
    assert entry.gates == {"auroc": 0.8}
    assert (entry.from_stage, entry.to_stage) == ("None", "Production")


def test_the_next_production_release_archives_the_one_before(registry):
    first, second = register(registry), register(registry)
    go(registry, first)
    go(registry, second)

    assert get_stage(registry, first) == "Archived"
    assert find_production(registry) == second


def test_a_release_taken_out_of_production_loses_the_alias_too(registry):
    version = register(registry)
    go(registry, version)
    go(registry, version, "Archived")

    assert get_stage(registry, version) == "Archived"
    assert find_production(registry) is None


def test_archiving_another_release_leaves_production_alone(registry):
    first, second = register(registry), register(registry)
    go(registry, second)
    go(registry, first, "Archived")

    assert find_production(registry) == second
    assert get_stage(registry, second) == "Production"


def test_a_first_release_cannot_be_rolled_back(registry):
    with pytest.raises(PromotionRefusedError, match="no earlier"):
        roll_back(registry, "ada", "a test")
    version = register(registry)
    go(registry, version)

    with pytest.raises(PromotionRefusedError, match="no earlier"):
        roll_back(registry, "ada", "a test")
    assert find_production(registry) == version
    assert [entry[-1] for entry in list_ledger(registry)] == ["refused", "promoted", "refused"]


def test_a_rollback_puts_the_release_before_back_without_asking_its_gates(registry):
    first, second = register(registry), register(registry)
    go(registry, first)
    go(registry, second)
    strict = Registry(registry.client, registry.engine, (AUROC.model_copy(update={"minimum": 1}),))

    assert roll_back(strict, "bob", "scores shifted") == first
    assert find_production(registry) == first
    assert get_stage(registry, second) == "Archived"
    last = read_ledger(registry)[-1]
    assert last.reason == f"scores shifted (rollback from {second})"
    assert (last.from_stage, last.actor) == ("Archived", "bob")


def test_a_second_rollback_goes_further_back_and_never_to_the_bad_one(registry):
    versions = [register(registry) for _ in range(3)]
    for version in versions:
        go(registry, version)

    assert roll_back(registry, "bob", "bad") == versions[1]
    assert roll_back(registry, "bob", "bad too") == versions[0]
    with pytest.raises(PromotionRefusedError, match="no earlier"):
        roll_back(registry, "bob", "all bad")


def test_a_rollback_after_a_new_promotion_skips_what_was_undone(registry):
    first, second, third = (register(registry) for _ in range(3))
    go(registry, first)
    go(registry, second)
    roll_back(registry, "bob", "bad")
    go(registry, third)

    assert roll_back(registry, "bob", "bad too") == first


def test_a_rollback_to_a_deleted_version_is_refused(registry):
    first, second = register(registry), register(registry)
    go(registry, first)
    go(registry, second)
    registry.client.delete_model_version(RELEASE_MODEL, str(first))

    with pytest.raises(PromotionRefusedError, match="no earlier"):
        roll_back(registry, "bob", "bad")
    assert find_production(registry) == second


def test_the_manifest_of_a_version_is_the_one_its_run_logged(registry):
    version = register(registry)
    run_id = registry.client.get_model_version(RELEASE_MODEL, str(version)).run_id
    assert read_manifest(registry, version).training_run_id == run_id


def test_the_ledger_cannot_be_rewritten(registry):
    go(registry, register(registry))
    for statement in ("UPDATE promotion_ledger SET actor = 'eve'", "DELETE FROM promotion_ledger"):
        with (
            pytest.raises(Exception, match="append-only"),
            registry.engine.begin() as connection,
        ):
            connection.execute(text(statement))


def test_what_is_recorded_is_dated_now(registry):
    go(registry, register(registry))
    (entry,) = read_ledger(registry)
    assert abs((datetime.now(UTC) - entry.created_at).total_seconds()) < 60
    assert json.dumps(entry.gates)


def test_a_promotion_that_changes_nothing_is_recorded_as_unchanged(registry):
    version = register(registry)
    for stage in ("Staging", "Staging", "Production", "Production"):
        go(registry, version, stage)

    assert list_ledger(registry) == [
        (version, "None", "Staging", "promoted"),
        (version, "Staging", "Staging", "unchanged"),
        (version, "Staging", "Production", "promoted"),
        (version, "Production", "Production", "unchanged"),
    ]
    assert find_production(registry) == version
