"""How MLflow knows a release as a model: who loads it, what it takes, what it predicts."""

from mlflow import pyfunc
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import Array

from mlruns_config.manifest import ReleaseManifest

#: File by which MLflow knows a model, and the module that loads a release.
MODEL_FILE, LOADER = "MLmodel", "flows.models.pyfunc"
SCORE = "risk_score"


def name_probability(outcome: str) -> str:
    """Return the column of an outcome's probability."""
    return f"probability_{outcome}"


def name_weeks(channel: str) -> str:
    """Return the column of a weekly channel, a list of weeks in each row."""
    return f"weekly_{channel}"


def describe_release_model(manifest: ReleaseManifest, run_id: str) -> str:
    """Return the file MLmodel of a release.

    All columns are required, NaN where a value is unknown: MLflow drops a misspelt column, which
    would otherwise count as missing in silence.
    """
    columns: list[ColSpec | TensorSpec] = [*_list_features(manifest), *_list_weeks(manifest)]
    signature = ModelSignature(
        # MLflow refuses an empty schema; a release without features takes none.
        inputs=Schema(columns) if columns else None,
        outputs=Schema([ColSpec(DataType.double, name) for name in list_outputs(manifest)]),
    )
    model = Model(run_id=run_id, signature=signature)
    pyfunc.add_to_model(model, loader_module=LOADER)
    return str(model.to_yaml())


def list_outputs(manifest: ReleaseManifest) -> list[str]:
    """Return the columns of a prediction: probability and score, then the second outcome's."""
    beside = manifest.worsening
    return [
        name_probability(manifest.outcome),
        SCORE,
        *([name_probability(beside.outcome)] if beside else []),
    ]


def list_used(manifest: ReleaseManifest) -> set[str]:
    """Return the names of the members that a head weighs."""
    return {name for head in manifest.heads for name in head.stacker.coefficients}


def _list_features(manifest: ReleaseManifest) -> list[ColSpec]:
    return [ColSpec(DataType.double, feature.name) for feature in manifest.features]


def _list_weeks(manifest: ReleaseManifest) -> list[ColSpec]:
    used = list_used(manifest)
    reads_weeks = any(pin.input == "sequence" for pin in manifest.members if pin.name in used)
    channels = manifest.sequence.channels if manifest.sequence and reads_weeks else []
    return [ColSpec(Array(DataType.double), name_weeks(channel.name)) for channel in channels]
