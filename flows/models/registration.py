"""From fitted members to registered versions: graphs, texts, hashes, manifest. No pickle."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
import numpy as np
import onnx
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from flows.datasets.rows import ModelRows
from flows.models.families import UNFAMILIARITY
from flows.models.isolation_forest import AnomalyForest, check_forest
from flows.models.member import (
    GRAPH_INPUT,
    FittedMember,
    GraphInput,
    check_head,
    check_parity,
)
from flows.models.refits import FittedRefits, check_refits
from flows.models.release_signature import MODEL_FILE, describe_release_model
from mlruns_config.description import describe_version
from mlruns_config.experiments import describe_model
from mlruns_config.manifest import (
    EVALUATED_FILE,
    HEAD_FILE,
    MANIFEST_FILE,
    MANIFEST_HASH_TAG,
    MEMBER_MODELS,
    ORIGIN_TAG,
    RELEASE_MODEL,
    MemberPin,
    ReleaseManifest,
    hash_file,
)
from mlruns_config.uncertainty import REFITS_FILE
from serving.audit.signing import Signer
from serving.releases.signatures import SIGNATURE_TAG, sign_release

GRAPH_FILE = "model.onnx"
#: Folder of a release run that the registered version points at.
RELEASE_FOLDER = "release"
#: Stated instead of inferred: inference starts a process that imports everything.
REQUIREMENTS = ["onnxruntime>=1.32"]


def register_member(
    name: str,
    family: str,
    member: FittedMember,
    rows: ModelRows,
    run_id: str,
    fitted: FittedRefits | None = None,
) -> MemberPin:
    """Log a member of a family to its (active) run, register a version and return its pin.

    `rows` are scored by graph and library; raises ParityError when they differ. They are those
    that its refits learnt from, if it is `fitted` again.
    """
    graph = member.export_graph()
    mlflow.log_metric("graph_parity_difference", check_parity(member, graph, rows))
    mlflow.log_params(member.parameters)
    files = member.export_files()
    if HEAD_FILE in files:
        mlflow.log_metric("head_parity_difference", check_head(graph, files[HEAD_FILE], rows))
    if fitted is not None:
        again = fitted.refits.export_graph()
        mlflow.log_metric("refits_parity_difference", check_refits(fitted.log_odds, again, rows))
        files[REFITS_FILE] = again.SerializeToString()
    return _register(name, family, graph, files, run_id, member.graph_input)


def register_forest(forest: AnomalyForest, rows: ModelRows, run_id: str) -> MemberPin:
    """Log the forest of unfamiliarity to its (active) run; return its pin.

    Raises ParityError when graph and library differ on `rows`.
    """
    graph = forest.export_graph()
    mlflow.log_metric("graph_parity_difference", check_forest(forest, graph, rows))
    mlflow.log_params(forest.parameters)
    return _register(UNFAMILIARITY, UNFAMILIARITY, graph, {}, run_id, GRAPH_INPUT)


def _register(
    name: str,
    family: str,
    graph: onnx.ModelProto,
    files: Mapping[str, bytes],
    run_id: str,
    graph_input: GraphInput,
) -> MemberPin:
    model_id = _log_graph(name, graph)
    client = MlflowClient()
    with TemporaryDirectory() as folder:
        for file_name, content in files.items():
            path = Path(folder) / file_name
            path.write_bytes(content)
            client.log_model_artifact(model_id, str(path))
        hashes = _hash_stored(model_id, [GRAPH_FILE, *files], Path(folder) / "stored")
    version = create_version(MEMBER_MODELS[family], f"models:/{model_id}", run_id, model_id)
    return MemberPin(
        name=name,
        registered_model=MEMBER_MODELS[family],
        version=version,
        run_id=run_id,
        input=graph_input,
        artifacts=hashes,
    )


def register_release(
    manifest: ReleaseManifest,
    run_id: str,
    card: str,
    evaluated: ReleaseManifest | None = None,
    signer: Signer | None = None,
) -> int:
    """Log the manifest to the release's run and register it; return the numeric version.

    `evaluated` is the release that the procedure gave without the held-out individuals. It is
    kept beside the manifest, because later releases are compared with it on these individuals.

    The version carries the head of the model card and links to all it was made of as its
    description, and as tags the manifest's hash and, with a `signer`, its signature: the API
    serves only a manifest that both fit.
    """
    client = MlflowClient()
    text = manifest.model_dump_json(indent=2)
    # An unreadable manifest must not become a version: JSON turns NaN to null.
    ReleaseManifest.model_validate_json(text)
    client.log_text(run_id, text, f"{RELEASE_FOLDER}/{MANIFEST_FILE}")
    if evaluated is not None:
        told = evaluated.model_dump_json(indent=2)
        client.log_text(run_id, told, f"{RELEASE_FOLDER}/{EVALUATED_FILE}")
    client.log_text(
        run_id, describe_release_model(manifest, run_id), f"{RELEASE_FOLDER}/{MODEL_FILE}"
    )
    info = client.get_run(run_id).info
    version = create_version(RELEASE_MODEL, f"{info.artifact_uri}/{RELEASE_FOLDER}", run_id)
    description = describe_version(card, manifest, info.experiment_id)
    client.update_model_version(RELEASE_MODEL, str(version), description=description)
    origin = "simulated" if manifest.is_simulated else "people"
    client.set_model_version_tag(RELEASE_MODEL, str(version), ORIGIN_TAG, origin)
    digest = hashlib.sha256(text.encode()).hexdigest()
    client.set_model_version_tag(RELEASE_MODEL, str(version), MANIFEST_HASH_TAG, digest)
    if signer is not None:
        signature = sign_release(version, digest, signer)
        client.set_model_version_tag(RELEASE_MODEL, str(version), SIGNATURE_TAG, signature)
    return version


def create_version(model: str, source: str, run_id: str, model_id: str | None = None) -> int:
    """Register `source` as the next version of `model` and return its number."""
    client = MlflowClient()
    try:
        client.get_registered_model(model)
    except MlflowException:
        client.create_registered_model(model)
    describe_model(client, model)
    created = client.create_model_version(model, source, run_id, model_id=model_id)
    return int(created.version)


def _log_graph(name: str, graph: onnx.ModelProto) -> str:
    info = mlflow.onnx.log_model(
        graph,
        name=name,
        signature=_describe_signature(graph),
        pip_requirements=REQUIREMENTS,
        save_as_external_data=False,
    )
    return str(info.model_id)


def _describe_signature(graph: onnx.ModelProto) -> ModelSignature:
    return ModelSignature(
        inputs=Schema([_describe_tensor(one) for one in graph.graph.input]),
        outputs=Schema([_describe_tensor(one) for one in graph.graph.output]),
    )


def _describe_tensor(value: onnx.ValueInfoProto) -> TensorSpec:
    sizes = [axis.dim_value for axis in value.type.tensor_type.shape.dim][1:]
    return TensorSpec(np.dtype(np.float32), (-1, *sizes), value.name)


def _hash_stored(model_id: str, files: list[str], folder: Path) -> dict[str, str]:
    # Of what MLflow stored, not of what was handed over: that is what serving will load.
    stored = Path(mlflow.artifacts.download_artifacts(f"models:/{model_id}", dst_path=str(folder)))
    return {name: hash_file(stored / name) for name in files}
