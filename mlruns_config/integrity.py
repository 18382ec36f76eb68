"""Whether a release is still what was registered: manifest, pinned members, every artifact.

Hashes are computed of what the artifact store returns now, which is what would be loaded.
"""

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException
from pydantic import ValidationError

from mlruns_config.manifest import (
    MANIFEST_FILE,
    MANIFEST_HASH_TAG,
    RELEASE_MODEL,
    MemberPin,
    ReleaseManifest,
    hash_file,
)

#: Prefix of MLflow's reference from a registered version to a logged model.
LOGGED_MODEL = "models:/"


def list_damage(client: MlflowClient, version: int) -> list[str]:
    """Return why a release version is not the one that was registered; empty if it is."""
    try:
        text = load_manifest_text(client, version)
        manifest = ReleaseManifest.model_validate_json(text)
    except (MlflowException, OSError, ValidationError):
        return ["its manifest cannot be read"]
    damage = _compare_with_tag(client, version, text)
    return damage + [
        defect for member in manifest.members for defect in _list_member_damage(client, member)
    ]


def load_manifest_text(client: MlflowClient, version: int, file: str = MANIFEST_FILE) -> str:
    """Return a manifest of a release version as its run logged it."""
    run_id = client.get_model_version(RELEASE_MODEL, str(version)).run_id
    artifact_uri = client.get_run(str(run_id)).info.artifact_uri
    with TemporaryDirectory() as folder:
        return _fetch(client, f"{artifact_uri}/release/{file}", folder).read_text()


def _fetch(client: MlflowClient, uri: str, folder: str) -> Path:
    """Download one artifact from the store of this client, whichever is set for the process."""
    local_path = download_artifacts(
        artifact_uri=uri, dst_path=folder, tracking_uri=client.tracking_uri
    )
    return Path(local_path)


def _locate_member(client: MlflowClient, member: MemberPin) -> str:
    """Return where the artifacts of a member version lie."""
    source = client.get_model_version_download_uri(member.registered_model, str(member.version))
    if not source.startswith(LOGGED_MODEL):
        return source
    logged = client.get_logged_model(source.removeprefix(LOGGED_MODEL))
    return str(logged.artifact_location)


def _compare_with_tag(client: MlflowClient, version: int, text: str) -> list[str]:
    registered = client.get_model_version(RELEASE_MODEL, str(version)).tags.get(MANIFEST_HASH_TAG)
    if registered is None:
        return [f"its tag {MANIFEST_HASH_TAG} is missing: what was registered is unknown"]
    if registered != hashlib.sha256(text.encode()).hexdigest():
        return ["its manifest is not the one that was registered"]
    return []


def _list_member_damage(client: MlflowClient, member: MemberPin) -> list[str]:
    name = f"{member.registered_model} {member.version}"
    try:
        client.get_model_version(member.registered_model, str(member.version))
    except MlflowException:
        return [f"{member.registered_model} has no version {member.version}"]
    if not member.artifacts:
        return [f"{name} pins no artifact"]
    with TemporaryDirectory() as folder:
        return [
            f"{name}: {damage}"
            for path, expected in member.artifacts.items()
            if (damage := _find_damage(client, member, path, expected, folder))
        ]


def _find_damage(
    client: MlflowClient, member: MemberPin, path: str, expected: str, folder: str
) -> str | None:
    try:
        digest = hash_file(_fetch(client, f"{_locate_member(client, member)}/{path}", folder))
    except (MlflowException, OSError):
        return f"artifact {path} cannot be read"
    return None if digest == expected else f"artifact {path} is not the one that was registered"
