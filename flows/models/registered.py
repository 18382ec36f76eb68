"""A release as it lies in the registry, opened to score rows: graphs whose hashes are checked."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts

from feature_repo.catalogue import list_model_inputs
from feature_repo.weekly_sequence import SEQUENCE_CHANNELS, SEQUENCE_WEEKS
from flows.datasets.rows import ModelRows, Probabilities
from flows.models.assembly import predict_release
from flows.models.families import BASELINE
from flows.models.member import open_session, score_graph
from flows.models.registration import GRAPH_FILE
from mlruns_config.manifest import MemberPin, ReleaseManifest, hash_file
from mlruns_config.registry.transitions import Registry, read_evaluated, read_manifest


class UnusableReleaseError(RuntimeError):
    """A registered release cannot score today's rows; the message gives the reason."""


@dataclass(frozen=True)
class RegisteredMember:
    """A member's graph; `columns` are where its features lie in today's catalogue."""

    session: onnxruntime.InferenceSession
    columns: list[int]

    def predict(self, rows: ModelRows) -> Probabilities:
        """Return the probability of the outcome for each row."""
        chosen = ModelRows(np.ascontiguousarray(rows.features[:, self.columns]), rows.sequences)
        return score_graph(self.session, chosen)


@dataclass(frozen=True)
class RegisteredRelease:
    """A release version with its weighed members, opened."""

    version: int
    manifest: ReleaseManifest
    members: dict[str, RegisteredMember]

    def predict(self, rows: ModelRows) -> Probabilities:
        """Return the calibrated probability of each row."""
        return predict_release(self.members, self.manifest, rows)


def open_release(registry: Registry, version: int) -> RegisteredRelease:
    """Open a release of the registry as it was evaluated: without the held-out individuals.

    Raises UnusableReleaseError where an artifact is not the one that was registered, or the
    release needs a feature that is not computed any more.
    """
    manifest = read_evaluated(registry, version)
    weighed = set(manifest.stacker.coefficients)
    return RegisteredRelease(version, manifest, open_members(registry.client, manifest, weighed))


def open_deployed_release(registry: Registry, version: int) -> RegisteredRelease:
    """Open a release as it answers, with its baseline and the members of its second outcome.

    Raises as `open_release` does.
    """
    manifest = read_manifest(registry, version)
    used = {BASELINE, *(name for head in manifest.heads for name in head.stacker.coefficients)}
    return RegisteredRelease(version, manifest, open_members(registry.client, manifest, used))


def open_members(
    client: MlflowClient, manifest: ReleaseManifest, names: Collection[str]
) -> dict[str, RegisteredMember]:
    """Open the graphs of the named members of a release; raises UnusableReleaseError."""
    columns = find_columns(manifest)
    pins = [pin for pin in manifest.members if pin.name in names] or manifest.members[:1]
    return {pin.name: RegisteredMember(_open_graph(client, pin), columns) for pin in pins}


def find_columns(manifest: ReleaseManifest) -> list[int]:
    """Return the position in today's catalogue of each feature a release takes.

    Raises UnusableReleaseError where one is no longer computed.
    """
    today = {column.name: n for n, column in enumerate(list_model_inputs())}
    missing = [feature.name for feature in manifest.features if feature.name not in today]
    if missing:
        raise UnusableReleaseError(f"no longer computed: {', '.join(missing)}")
    sequence = manifest.sequence
    if sequence is not None and (
        sequence.weeks != SEQUENCE_WEEKS
        or [channel.name for channel in sequence.channels] != list(SEQUENCE_CHANNELS)
    ):
        raise UnusableReleaseError("its weekly sequence is not the one that is computed today")
    return [today[feature.name] for feature in manifest.features]


def _open_graph(client: MlflowClient, pin: MemberPin) -> onnxruntime.InferenceSession:
    source = client.get_model_version_download_uri(pin.registered_model, str(pin.version))
    with TemporaryDirectory() as folder:
        path = Path(
            download_artifacts(
                f"{source}/{GRAPH_FILE}", dst_path=folder, tracking_uri=client.tracking_uri
            )
        )
        if hash_file(path) != pin.artifacts.get(GRAPH_FILE):
            raise UnusableReleaseError(
                f"{pin.registered_model} {pin.version}: {GRAPH_FILE} is not the registered one"
            )
        return open_session(path.read_bytes())
