"""Registered versions that a training left half made."""

from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from flows.runtime.flow_run import FLOW_RUN_TAG
from flows.runtime.orphaned_flow_runs import has_ended
from flows.runtime.orphaned_mlflow_runs import list_children, list_runs
from mlruns_config.manifest import MANIFEST_HASH_TAG, MEMBER_MODELS, RELEASE_MODEL

#: Tag of a version with an interrupted registration: why it is no release, or belongs to none.
BROKEN_TAG = "registration.broken_off"


@dataclass(frozen=True)
class BrokenVersion:
    """A version that must not be used, and the reason."""

    model: str
    version: int
    why: str


def list_broken(client: MlflowClient) -> list[BrokenVersion]:
    """Return the half-registered versions that are not marked as such yet."""
    dead = [run for state in ("KILLED", "FAILED") for run in list_runs(client, state)]
    releases = client.search_model_versions(f"name='{RELEASE_MODEL}'")
    made = {str(release.run_id) for release in releases}
    unfinished = [run.info.run_id for run in dead if run.info.run_id not in made]
    orphans = {child for run_id in unfinished for child in list_children(client, run_id)}
    broken = [
        (release, why) for release in releases if (why := _judge_release(client, release, dead))
    ]
    for model in MEMBER_MODELS.values():
        for model_version in client.search_model_versions(f"name='{model}'"):
            if model_version.run_id in orphans:
                broken.append(
                    (model_version, "its training ended before there was a release of it")
                )
    return [
        BrokenVersion(model_version.name, int(model_version.version), why)
        for model_version, why in broken
        if BROKEN_TAG not in model_version.tags
    ]


def _judge_release(client: MlflowClient, version: ModelVersion, dead: list[Run]) -> str | None:
    is_whole = MANIFEST_HASH_TAG in version.tags
    if is_whole and version.current_stage != "None":
        return None
    ended = version.run_id in {run.info.run_id for run in dead}
    if not ended and not _has_ended(client, version):
        return None  # its training is still at it
    if not is_whole:
        return "its manifest is unknown"
    return "its training ended before it came to Staging"


def _has_ended(client: MlflowClient, version: ModelVersion) -> bool:
    named = client.get_run(str(version.run_id)).data.tags.get(FLOW_RUN_TAG)
    return bool(named) and has_ended(str(named)) is True


def mark_broken(client: MlflowClient, version: BrokenVersion) -> None:
    client.set_model_version_tag(version.model, str(version.version), BROKEN_TAG, version.why)
