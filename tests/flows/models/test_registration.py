"""Registered versions hold graphs, texts and a manifest, hashed as stored; never a pickle."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnx
import pytest

from flows.models.folded_regression import FoldedRegression
from flows.models.logistic_regression import fit
from flows.models.member import ParityError, open_graph, score_graph
from flows.models.registration import register_member, register_release
from flows.models.release_signature import MODEL_FILE
from mlruns_config.manifest import MANIFEST_FILE, MANIFEST_HASH_TAG, ReleaseManifest, hash_file
from tests.fixtures.drawn_rows import draw_fitting_data, draw_rows
from tests.fixtures.manifests import make_manifest
from tests.fixtures.trained_world import import_libraries, make_tracking_store


@pytest.fixture(scope="module", autouse=True)
def tracking(tmp_path_factory):
    import_libraries()
    mlflow.set_tracking_uri(make_tracking_store(tmp_path_factory.mktemp("registration")))
    mlflow.set_experiment("mhras-training")


@pytest.fixture(scope="module")
def member() -> FoldedRegression:
    return fit(draw_fitting_data(400))


@dataclass(frozen=True)
class Deviating:
    """A member whose graph says something else than it does."""

    member: FoldedRegression

    def __getattr__(self, name: str) -> Any:
        return getattr(self.member, name)

    def export_graph(self) -> onnx.ModelProto:
        return replace(self.member, intercept=self.member.intercept + 1).export_graph()


def test_a_graph_that_deviates_is_not_registered(member):
    name = "logistic_regression"
    client = mlflow.MlflowClient()
    before = client.search_model_versions(f"name='mhras-{name.replace('_', '-')}'")
    with mlflow.start_run() as run, pytest.raises(ParityError):
        register_member(name, name, Deviating(member), draw_rows(1000, 1), run.info.run_id)

    after = client.search_model_versions(f"name='mhras-{name.replace('_', '-')}'")
    assert len(after) == len(before)


def test_a_registered_member_is_what_was_fitted(member, tmp_path):
    rows = draw_rows(1000, 1)
    with mlflow.start_run() as run:
        pin = register_member(
            "logistic_regression", "logistic_regression", member, rows, run.info.run_id
        )
    where = f"models:/{pin.registered_model}/{pin.version}"
    folder = Path(mlflow.artifacts.download_artifacts(where, dst_path=str(tmp_path)))
    stored = score_graph(open_graph(onnx.load(folder / "model.onnx")), rows)

    assert pin.artifacts == {name: hash_file(folder / name) for name in pin.artifacts}
    assert set(pin.artifacts) == {"model.onnx", "linear.json"}
    assert np.abs(stored - member.predict(rows)).max() < 1e-6
    assert not list(folder.rglob("*.pkl"))


def test_versions_count_up(member):
    versions = []
    for _ in range(2):
        with mlflow.start_run() as run:
            pin = register_member("lightgbm", "lightgbm", member, draw_rows(10, 1), run.info.run_id)
        versions.append(pin.version)
    assert versions == [1, 2]


def test_a_release_is_its_manifest_and_nothing_else(tmp_path):
    manifest = make_manifest()
    with mlflow.start_run() as run:
        version = register_release(manifest, run.info.run_id, "# A card\n\nOf a test.")
    where = f"models:/mhras-risk/{version}"
    folder = Path(mlflow.artifacts.download_artifacts(where, dst_path=str(tmp_path)))
    files = {path.name for path in folder.rglob("*") if path.is_file()}

    assert MANIFEST_FILE in files
    assert files <= {MANIFEST_FILE, MODEL_FILE, "registered_model_meta"}
    read = ReleaseManifest.model_validate_json((folder / MANIFEST_FILE).read_text())
    assert read == manifest
    known = mlflow.MlflowClient().get_model_version("mhras-risk", str(version))
    assert known.tags[MANIFEST_HASH_TAG] == hash_file(folder / MANIFEST_FILE)
    assert "A card" in known.description
