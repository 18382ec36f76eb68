"""A small real release: two members trained on the spot, registered and put to Production."""

import hashlib
import json
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightgbm
import mlflow
import numpy as np
import onnx
import onnxmltools
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from onnx import TensorProto, helper, numpy_helper
from onnxmltools.convert.common.data_types import FloatTensorType
from sklearn.linear_model import LogisticRegression

from feature_repo.answer_features import STORED_PHQ9_ITEMS
from feature_repo.stored_views import StoredFeature, StoredView
from mlruns_config.release import (
    MANIFEST_FILE,
    MANIFEST_HASH_TAG,
    MEMBER_MODELS,
    RELEASE_MODEL,
    Calibration,
    FeatureDescription,
    Lever,
    MemberPin,
    ReleaseManifest,
    ScoreMap,
    Stacker,
    hash_file,
)
from tests.fixtures.manifests import make_conformal

OPSET = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
COLUMNS = (
    ("phq9_total", "PHQ-9 total", "points", "survey", 1, 17),
    ("phq9_item_9", "PHQ-9 item 9", "points", "survey", 0, 1),
    ("gad7_total", "GAD-7 total", "points", "survey", 1, 14),
    ("steps_mean_28", "steps a day, mean of 28 days", "steps", "wearable", 2500, 11000),
    ("sleep_minutes_mean_28", "sleep a night, mean of 28 days", "minutes", "wearable", 330, 480),
    ("emergency_visits_365", "emergency visits in a year", "count", "emr", 0, 2),
    ("age", "age", "years", None, 21, 70),
)
FEATURES = [
    FeatureDescription(
        name=name, label=label, unit=unit, data_type=data_type, usual_low=low, usual_high=high
    )
    for name, label, unit, data_type, low, high in COLUMNS
]
STEPS = Lever(
    name="steps",
    label="daily steps",
    unit="steps",
    columns=["steps_mean_28"],
    low=2500,
    high=11000,
)
SLEEP = Lever(
    name="sleep",
    label="sleep a night",
    unit="minutes",
    columns=["sleep_minutes_mean_28"],
    low=330,
    high=480,
)
WIDTH = len(FEATURES)


def describe_view(name: str, data_type: str | None, *features: str) -> StoredView:
    return StoredView(name, None, tuple(StoredFeature(one, data_type) for one in features))


STORED_VIEWS = [
    describe_view("windows", "wearable", "steps_mean_28", "sleep_minutes_mean_28"),
    describe_view("care", "emr", "emergency_visits_365"),
    describe_view("demographics", None, "birth_year"),
    describe_view("surveys", "survey", "stored_phq9_total", "stored_phq9_at", *STORED_PHQ9_ITEMS),
]


@dataclass(frozen=True)
class TrainedMembers:
    """What training leaves of the two members."""

    linear_terms: dict[str, Any]
    booster: lightgbm.Booster


def draw_training_data(rows: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Seeded rows between the usual bounds, a tenth missing, risk rising with symptoms."""
    random = np.random.default_rng(7)
    low = np.array([column[4] for column in COLUMNS], dtype=float)
    high = np.array([column[5] for column in COLUMNS], dtype=float)
    shares = random.random((rows, WIDTH))
    risk = 3 * shares[:, 0] + shares[:, 2] - shares[:, 4] + shares[:, 5] - 2.5
    outcome = (random.random(rows) < 1 / (1 + np.exp(-risk))).astype(int)
    values = (low + shares * (high - low)).astype(np.float32)
    values[random.random(values.shape) < 0.1] = np.nan
    return values, outcome


def train_members() -> TrainedMembers:
    values, outcome = draw_training_data()
    mean, scale = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
    missing = np.isnan(values)
    standardised = (np.where(missing, mean, values) - mean) / scale
    regression = LogisticRegression().fit(np.hstack([standardised, missing]), outcome)
    coefficients = regression.coef_[0]
    terms = {
        "fill": mean.tolist(),
        "mean": mean.tolist(),
        "scale": scale.tolist(),
        "coefficients": coefficients[:WIDTH].tolist(),
        "missing_coefficients": coefficients[WIDTH:].tolist(),
        "intercept": float(regression.intercept_[0]),
    }
    parameters = {"objective": "binary", "verbosity": -1, "num_threads": 1, "num_leaves": 7}
    booster = lightgbm.train(parameters, lightgbm.Dataset(values, outcome), num_boost_round=30)
    return TrainedMembers(terms, booster)


def export_linear(terms: dict[str, Any]) -> onnx.ModelProto:
    """Write the regression as a graph: fill, standardise, weigh, squash."""
    columns = {name: np.array(terms[name], np.float32) for name in ("fill", "mean", "scale")}
    constants = columns | {
        "weights": np.array(terms["coefficients"], np.float32).reshape(-1, 1),
        "missing_weights": np.array(terms["missing_coefficients"], np.float32).reshape(-1, 1),
        "intercept": np.array([terms["intercept"]], np.float32),
        "flat": np.array([-1], np.int64),
    }
    nodes = [
        helper.make_node("IsNaN", ["features"], ["missing"]),
        helper.make_node("Where", ["missing", "fill", "features"], ["filled"]),
        helper.make_node("Sub", ["filled", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "scale"], ["standardised"]),
        helper.make_node("MatMul", ["standardised", "weights"], ["weighed"]),
        helper.make_node("Cast", ["missing"], ["missing_numbers"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["missing_numbers", "missing_weights"], ["missing_weighed"]),
        helper.make_node("Add", ["weighed", "missing_weighed"], ["summed"]),
        helper.make_node("Add", ["summed", "intercept"], ["log_odds"]),
        helper.make_node("Sigmoid", ["log_odds"], ["column"]),
        helper.make_node("Reshape", ["column", "flat"], ["probability"]),
    ]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "linear", [make_input()], [make_output()], initializers)
    return helper.make_model(graph, opset_imports=OPSET[:1], ir_version=8)


def export_trees(booster: lightgbm.Booster) -> onnx.ModelProto:
    """Convert the trees and keep the second column, the probability of the outcome."""
    model = onnxmltools.convert_lightgbm(
        booster,
        initial_types=[("features", FloatTensorType([None, WIDTH]))],
        target_opset=15,
        zipmap=False,
    )
    graph = model.graph
    (probabilities,) = [out.name for out in graph.output if out.name != "label"]
    graph.initializer.append(numpy_helper.from_array(np.array(1, np.int64), "second"))
    graph.node.append(
        helper.make_node("Gather", [probabilities, "second"], ["probability"], axis=1)
    )
    del graph.output[:]
    graph.output.append(make_output())
    return model


def make_input() -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, WIDTH])


def make_output() -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info("probability", TensorProto.FLOAT, [None])


class ReleaseFactory:
    """Registers releases in a real MLflow, as training and the registry module do."""

    def __init__(self, tracking_uri: str, folder: Path) -> None:
        self.tracking_uri = tracking_uri
        self._folder = folder
        self._client = mlflow.MlflowClient(tracking_uri)
        self.members = train_members()
        with warnings.catch_warnings():
            # mlflow.onnx and the stages warn of removals to come; the versions are locked.
            warnings.simplefilter("ignore")
            mlflow.set_tracking_uri(tracking_uri)
            # Whoever trained before in this process left its own experiment active.
            mlflow.set_experiment("Default")
            self.pins = [self._log_linear(), self._log_trees()]

    def publish(self, *, promote: bool = True, **changes: Any) -> int:
        """Register a release, by default in Production; `changes` replace manifest parts."""
        manifest = self.make_manifest(**changes)
        run = self._client.create_run(self._client.get_experiment_by_name("Default").experiment_id)
        text = manifest.model_dump_json()
        self._client.log_text(run.info.run_id, text, MANIFEST_FILE)
        version = self._register(RELEASE_MODEL, run.info.artifact_uri, run.info.run_id)
        self.tag_manifest(version, hashlib.sha256(text.encode()).hexdigest())
        if promote:
            self.promote(version)
        return version

    def tag_manifest(self, version: int, digest: str) -> None:
        self._client.set_model_version_tag(RELEASE_MODEL, str(version), MANIFEST_HASH_TAG, digest)

    def promote(self, version: int) -> None:
        self.set_stage(version)
        self._client.set_registered_model_alias(RELEASE_MODEL, "production", str(version))

    def set_stage(self, version: int) -> None:
        self._move(version, "Production", archive=True)

    def stage(self, version: int) -> None:
        """Put a version where a candidate is rolled out from."""
        self._move(version, "Staging", archive=False)

    def _move(self, version: int, stage: str, archive: bool) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            self._client.transition_model_version_stage(
                RELEASE_MODEL, str(version), stage, archive_existing_versions=archive
            )

    def withdraw(self) -> None:
        """Leave the registry without a Production release."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            for found in self._client.search_model_versions(f"name='{RELEASE_MODEL}'"):
                self._client.transition_model_version_stage(
                    RELEASE_MODEL, found.version, "Archived"
                )

    def make_manifest(self, **changes: Any) -> ReleaseManifest:
        parts: dict[str, Any] = {
            "created_at": datetime.now(UTC),
            "training_run_id": "0" * 32,
            "feature_service": "screening_v1",
            "features": FEATURES,
            "stored_views": STORED_VIEWS,
            "members": self.pins,
            "stacker": Stacker(
                intercept=-0.1, coefficients={"logistic_regression": 0.6, "lightgbm": 0.5}
            ),
            "calibration": Calibration(kind="identity", inputs=[0, 1], outputs=[0, 1]),
            "conformal": make_conformal(),
            "score_map": ScoreMap(
                probabilities=[0, 0.2, 0.4, 0.6, 1],
                scores=[0, 25, 50, 75, 100],
                operating_points={"25": "a", "50": "b", "75": "c"},
            ),
            "lineage": {"git_commit": "test"},
        }
        return ReleaseManifest(**(parts | changes))

    def _log_linear(self) -> MemberPin:
        path = self._folder / "linear.json"
        path.write_text(json.dumps(self.members.linear_terms))
        return self._log("logistic_regression", export_linear(self.members.linear_terms), path)

    def _log_trees(self) -> MemberPin:
        path = self._folder / "model.txt"
        self.members.booster.save_model(path)
        return self._log("lightgbm", export_trees(self.members.booster), path)

    def _log(self, name: str, model: onnx.ModelProto, extra: Path) -> MemberPin:
        registered_model = MEMBER_MODELS[name]
        with mlflow.start_run() as run:
            info = mlflow.onnx.log_model(
                model,
                name=name,
                signature=ModelSignature(
                    Schema([TensorSpec(np.dtype(np.float32), (-1, WIDTH), "features")])
                ),
                pip_requirements=["onnxruntime"],
                save_as_external_data=False,
            )
            self._client.log_model_artifact(info.model_id, str(extra))
        version = self._register(
            registered_model, f"models:/{info.model_id}", run.info.run_id, info.model_id
        )
        return MemberPin(
            name=name,
            registered_model=registered_model,
            version=version,
            run_id=run.info.run_id,
            artifacts={
                "model.onnx": self._hash_logged(info.model_id),
                extra.name: hash_file(extra),
            },
        )

    def _hash_logged(self, model_id: str) -> str:
        # MLflow writes the graph anew, so the hash is that of what it stored.
        stored = mlflow.artifacts.download_artifacts(
            f"models:/{model_id}", dst_path=str(self._folder / model_id)
        )
        return hash_file(Path(stored) / "model.onnx")

    def _register(self, model: str, source: str, run_id: str, model_id: str | None = None) -> int:
        if not self._client.search_registered_models(f"name='{model}'"):
            self._client.create_registered_model(model)
        created = self._client.create_model_version(model, source, run_id, model_id=model_id)
        return int(created.version)
