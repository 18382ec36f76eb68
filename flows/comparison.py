"""The comparison flow: a release beside the one in Production, on the same held-out people.

Training runs it for the release it has just registered; it can be run by hand where another release
has become Production since, because the gates take no comparison with an earlier one.
"""

from collections.abc import Collection

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from flows.datasets.loading import load_training_set
from flows.datasets.training_set import TrainingSet
from flows.evaluation.comparison import Comparison, compare_releases, log_comparison
from flows.models.registered import RegisteredRelease, UnusableReleaseError, open_release
from flows.runtime.notifications import NOTIFICATION_HOOKS
from flows.runtime.retries import IO_RETRIES
from mlruns_config.manifest import RELEASE_MODEL
from mlruns_config.registry.transitions import (
    Registry,
    find_production,
    find_version,
    list_once_in_production,
    open_registry,
)
from serving.database.sessions import create_database_engine
from serving.settings import get_settings

#: Releases of Production that a challenger is compared with, the last ones.
EARLIER_RELEASES = 5


class UnknownReleaseError(ValueError):
    """There is no such release version."""


@flow(name="comparison", timeout_seconds=4 * 3600, **NOTIFICATION_HOOKS)
def compare_release(version: int) -> Comparison | None:
    """Compare a release with the one in Production on what the lake holds now.

    Metrics and table go to the release's MLflow run, where the gates read them. Returns None
    where nothing is in Production, or the release itself is. Raises UnknownReleaseError.

    Args:
        version: Number of the registered release to compare.

    """
    return compare_with_production(load_training_set(get_settings().lake_url), version)


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def compare_with_production(training_set: TrainingSet, version: int) -> Comparison | None:
    """Compare a registered release with Production on the held-out rows and log what is found.

    A Production release that cannot score these rows leaves the comparison missing: the gates fail
    then, and a person has to look. Raises UnknownReleaseError for a version that is not registered.
    """
    engine = create_database_engine(get_settings().database_url.get_secret_value())
    try:
        registry = open_registry(get_settings().mlflow_tracking_uri, engine)
        production, model_version = find_production(registry), find_version(registry, version)
        if model_version is None:
            raise UnknownReleaseError(f"{RELEASE_MODEL} has no version {version}")
        if production in (None, version):
            return None
        challenger, rival = open_release(registry, version), open_release(registry, production)
        earlier = open_earlier(registry, {version, production})
        comparison = compare_releases(training_set, challenger, rival, earlier)
        log_comparison(registry.client, str(model_version.run_id), comparison)
    except UnusableReleaseError as error:
        get_run_logger().error("release %d is not compared: %s", version, error)
        return None
    finally:
        engine.dispose()
    create_markdown_artifact(comparison.to_markdown(), key="versus-production")
    return comparison


def open_earlier(registry: Registry, others: Collection[int | None]) -> list[RegisteredRelease]:
    """Open the last releases of Production besides `others`; one that cannot score is left out."""
    opened = []
    for version in list_once_in_production(registry, EARLIER_RELEASES):
        if version in others:
            continue
        try:
            opened.append(open_release(registry, version))
        except UnusableReleaseError as error:
            get_run_logger().warning("release %d is not compared: %s", version, error)
    return opened
