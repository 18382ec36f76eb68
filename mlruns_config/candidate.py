"""The candidate of a gradual rollout, as it is kept with its registered version.

State is the alias `candidate` and the tags `rollout.*`; what they mean is arms.py.
"""

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from mlruns_config.arms import CANDIDATE_ALIAS, MODE_TAG, SHARE_TAG, Rollout, read_tags
from mlruns_config.manifest import RELEASE_MODEL

#: MLflow's error codes for a missing model or version (the first) or alias (the second).
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def find_by_alias(client: MlflowClient, model: str, alias: str) -> ModelVersion | None:
    """Return the version with an alias, or None; a registry that is away raises."""
    try:
        return client.get_model_version_by_alias(model, alias)
    except MlflowException as error:
        if error.error_code not in ABSENT:
            raise
        return None


def read_candidate(client: MlflowClient) -> Rollout | None:
    """Return the running rollout, or None.

    Raises ValueError when the share is not a number from 0 to 1.
    """
    model_version = find_by_alias(client, RELEASE_MODEL, CANDIDATE_ALIAS)
    return (
        None if model_version is None else read_tags(int(model_version.version), model_version.tags)
    )


def write_candidate(client: MlflowClient, rollout: Rollout) -> None:
    """Keep a rollout with its version. The alias comes last: until then nothing has changed."""
    version = str(rollout.version)
    for tag, value in ((SHARE_TAG, str(rollout.share)), (MODE_TAG, rollout.mode)):
        client.set_model_version_tag(RELEASE_MODEL, version, tag, value)
    client.set_registered_model_alias(RELEASE_MODEL, CANDIDATE_ALIAS, version)


def clear_candidate(client: MlflowClient, version: int) -> None:
    """Remove the marks of a version's rollout.

    The mode goes first (the candidate then answers nobody), the alias last: broken off in
    between, a second attempt still finds what to remove.
    """
    for tag in (MODE_TAG, SHARE_TAG):
        client.delete_model_version_tag(RELEASE_MODEL, str(version), tag)
    client.delete_registered_model_alias(RELEASE_MODEL, CANDIDATE_ALIAS)
