"""What a release was made of: found again, and without any row."""

import hashlib
import json
import subprocess

import mlflow
import pytest

from feature_repo.screening_v1 import screening_v1
from flows.datasets import lineage
from flows.datasets.lineage import (
    LANDED_TABLES,
    LakeTable,
    describe_lineage,
    find_git_commit,
    find_validation,
    freeze_environment,
    hash_feature_service,
)
from flows.lake.tables import describe_table


def test_tables_that_were_never_validated_have_no_validation(in_trained_world):
    assert find_validation(dict.fromkeys(LANDED_TABLES, 999)) == {}


def test_the_lineage_names_every_table_by_version_and_digest(in_trained_world):
    found = describe_lineage(in_trained_world.lake_url)

    assert set(found["tables"]) == set(LANDED_TABLES)
    for name in ("people", "surveys", "wearable_days", "emr_events"):
        state = found["tables"][name]
        assert state["version"] >= 1
        assert state["rows"] > 0
        assert len(state["digest"]) == 64
    validation = found["validation"]
    assert validation["run_id"] == in_trained_world.validation_run_id
    assert validation["success"] == "true"
    run = mlflow.get_run(validation["run_id"])
    assert run.info.experiment_id == validation["experiment_id"]
    assert min(found["feature_tables"].values()) >= 1
    json.dumps(found)  # it goes into the manifest


def test_a_dataset_says_where_and_how_many_and_shows_no_row(in_trained_world):
    state = describe_table(in_trained_world.lake_url, "people")
    dataset = LakeTable(in_trained_world.lake_url, state)

    assert dataset.name == f"people@{state.version}"
    assert state.digest.startswith(dataset.digest)
    assert json.loads(dataset.to_dict()["profile"]) == {"rows": state.rows}


def test_the_hash_of_the_contract_changes_with_its_columns():
    first = hash_feature_service(screening_v1)
    fewer = type(screening_v1)(name="screening_v1", features=[])

    assert first == hash_feature_service(screening_v1)
    assert first != hash_feature_service(fewer)


def test_the_environment_is_told_by_digest_and_listed_in_the_run(in_trained_world):
    client = mlflow.MlflowClient(in_trained_world.tracking_uri)
    run_id = in_trained_world.report.run_id
    listed = {one.path for one in client.list_artifacts(run_id, "environment")}
    digest = hashlib.sha256(freeze_environment().encode()).hexdigest()

    assert listed == {"environment/packages.txt", "environment/requirements.lock"}
    assert digest in client.get_run(run_id).data.tags["lineage.environment"]
    assert f"mlflow=={mlflow.__version__}" in freeze_environment().splitlines()


def test_an_image_says_its_commit_by_a_variable(monkeypatch):
    monkeypatch.setenv("GIT_COMMIT", "abc123")
    assert find_git_commit() == "abc123"


def test_outside_a_checkout_the_commit_is_unknown(monkeypatch, tmp_path):
    monkeypatch.delenv("GIT_COMMIT", raising=False)
    monkeypatch.setattr(lineage, "PROJECT", tmp_path)
    assert find_git_commit() == "unknown"


@pytest.mark.parametrize("path", ["", "/nowhere"])
def test_without_git_the_commit_is_unknown(monkeypatch, path):
    monkeypatch.delenv("GIT_COMMIT", raising=False)
    monkeypatch.setenv("PATH", path)
    assert find_git_commit() == "unknown"


def test_in_a_repository_without_commits_the_commit_is_unknown(monkeypatch, tmp_path):
    monkeypatch.delenv("GIT_COMMIT", raising=False)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.setattr(lineage, "PROJECT", tmp_path)
    assert find_git_commit() == "unknown"
