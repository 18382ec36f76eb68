"""The external validation flow: a pinned release on labelled data from elsewhere.

The drop is read by the same contract, labels and features as everything else, into a lake of its
own that is removed at the end; its consents are seen by this run alone. Nothing of it reaches the
lake, the feature store, the consents or a training of this state.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from sqlalchemy import Engine

from feature_repo.pseudonyms import BUCKET_COUNT
from feature_repo.stored_views import JOIN_KEY
from flows.comparison import UnknownReleaseError
from flows.datasets.external import load_external_set, open_separate_store
from flows.datasets.labels import find_last_day
from flows.datasets.unseen import UnseenSet
from flows.evaluation.external_record import Validation, log_validation, publish_validation
from flows.evaluation.recalibration import offer_recalibration
from flows.evaluation.unseen import evaluate_unseen, score_unseen
from flows.ingestion import MAX_QUARANTINED_SHARE, ingest_files, list_locations, prepare_run
from flows.lake.aside import find_known_people, open_consents_aside
from flows.lake.consents import read_consented_types
from flows.lake.report import IngestionFailedError
from flows.materialisation import compute_bucket
from flows.models.registered import RegisteredRelease, UnusableReleaseError, open_deployed_release
from flows.runtime.database import open_database
from flows.runtime.notifications import NOTIFICATION_HOOKS
from flows.runtime.retries import IO_RETRIES
from flows.sources.locations import DropLocation, check_location
from flows.sources.pseudonymise import PersonKey
from flows.validation import VALIDATED_TABLES, ValidationFailedError, validate_table
from mlruns_config.external_validation import write_section
from mlruns_config.integrity import list_damage
from mlruns_config.manifest import RELEASE_MODEL
from mlruns_config.pages import locate_run
from mlruns_config.registry.transitions import find_version, open_registry
from serving.settings import get_settings

#: One seed for all validations: the same data give the same intervals.
SEED = 7
#: Ends the salt of another organisation's ids, so that its person 17 is not ours.
FOREIGN = "/external ids"


@dataclass(frozen=True)
class ExternalReport:
    """What a validation came to; `run_id` is the MLflow run that holds all of it."""

    run_id: str
    release: int
    metrics: dict[str, float]
    recalibration: str


@flow(name="external-validation", timeout_seconds=6 * 3600, **NOTIFICATION_HOOKS)
def validate_externally(
    drop: DropLocation,
    release: int,
    source: str = "",
    simulated: bool = False,
    foreign_ids: bool = False,
    max_quarantined_share: float = MAX_QUARANTINED_SHARE,
) -> ExternalReport:
    """Assess a registered release on a labelled drop, which is neither kept nor used for training.

    Metrics, tables and plots go to an MLflow run that is linked with the release, and a section
    to the release's card. A recalibration is offered there; the flow `recalibration` makes it.
    Individuals whose data this state holds are left out. Raises DropLocationError,
    UnknownReleaseError, UnusableReleaseError, IngestionFailedError, ValidationFailedError and
    NotEnoughLabelsError.

    Args:
        drop: Folder or s3:// prefix of the data, within DROP_LOCATIONS, with consents to training.
        release: Number of the registered release to assess.
        source: Where the data come from, for the card, such as "clinic B, 2024".
        simulated: Whether the people of the drop are simulated.
        foreign_ids: Whether person_id is another organisation's, whose numbers are not ours.
        max_quarantined_share: Share of a table's records that may be bad before the run fails.
    """
    check_location(drop, list_locations(get_settings()))
    opened = open_pinned_release(release)
    with read_aside(drop, foreign_ids, max_quarantined_share) as external:
        validation = assess(opened, external, source.strip() or "external data", simulated)
    run_id = log_validation(validation)
    publish_validation(validation, run_id)
    _leave_artifacts(validation, run_id)
    return ExternalReport(
        run_id, release, validation.evaluation.metrics, validation.describe_recalibration()
    )


def _may_pass(_task: Any, _run: Any, state: Any) -> bool:
    refused = (UnknownReleaseError, UnusableReleaseError)
    return not isinstance(state.result(raise_on_failure=False), refused)


@task(cache_policy=NO_CACHE, retry_condition_fn=_may_pass, **IO_RETRIES)
def open_pinned_release(version: int) -> RegisteredRelease:
    """Open a release as it answers; raises UnknownReleaseError, UnusableReleaseError."""
    with open_database() as engine:
        registry = open_registry(get_settings().mlflow_tracking_uri, engine)
        if find_version(registry, version) is None:
            raise UnknownReleaseError(f"{RELEASE_MODEL} has no version {version}")
        if damage := list_damage(registry.client, version):
            raise UnusableReleaseError(f"{RELEASE_MODEL} {version}: {'; '.join(damage)}")
        return open_deployed_release(registry, version)


@contextmanager
def read_aside(drop: str, foreign_ids: bool, max_quarantined_share: float) -> Iterator[UnseenSet]:
    """Read a drop into a lake of its own and give its labelled rows; the lake ends with them."""
    settings = get_settings()
    with (
        TemporaryDirectory(prefix="mhras-external-") as folder,
        open_consents_aside(settings.database_url.get_secret_value()) as aside,
    ):
        lake_url = str(Path(folder) / "lake")
        land_aside(drop, lake_url, aside, foreign_ids, max_quarantined_share)
        consented = read_consented_types(aside, purposes=["training"])
        with open_database() as engine:
            known_people = find_known_people(engine, settings.lake_url, consented[JOIN_KEY])
        yield load_aside(Path(folder), lake_url, consented, known_people)


def land_aside(
    drop: str, lake_url: str, aside: Engine, foreign_ids: bool, max_quarantined_share: float
) -> None:
    """Land and validate a drop as the ingestion and validation flows do, in another lake.

    Raises IngestionFailedError and ValidationFailedError.
    """
    settings = get_settings()
    salt = settings.anonymization_salt.get_secret_value()
    key = PersonKey(
        f"{salt}{FOREIGN}" if foreign_ids else salt, folds_case=settings.folds_case_of_ids
    )
    report = ingest_files(prepare_run(drop, lake_url, key), aside)
    report.check()
    failures = report.list_failures(max_quarantined_share)
    if report.is_all_withheld:
        failures.append(report.describe_withheld())
    if failures:
        raise IngestionFailedError("; ".join(failures), report)
    results = [validate_table(lake_url, name) for name in VALIDATED_TABLES]
    if broken := [failure for result in results for failure in result.failures]:
        raise ValidationFailedError("; ".join(broken))


@task(cache_policy=NO_CACHE)
def load_aside(
    folder: Path, lake_url: str, consented: pl.DataFrame, known_people: pl.Series
) -> UnseenSet:
    """Compute the features of another lake and return its labelled rows."""
    store = open_separate_store(folder, lake_url)
    snapshot = max(find_last_day(lake_url), datetime.now(UTC).date())
    for bucket in range(BUCKET_COUNT):
        # In this process: workers of a cluster do not see its folder.
        compute_bucket.fn(lake_url, bucket, snapshot)
    external = load_external_set(store, lake_url, consented, known_people)
    get_run_logger().info("%d labelled external rows", external.frame.height)
    return external


@task(cache_policy=NO_CACHE)
def assess(
    release: RegisteredRelease, external: UnseenSet, source: str, simulated: bool
) -> Validation:
    """Evaluate a release on external rows, and what recalibrating it to them would change."""
    scored = score_unseen(external, release, SEED)
    evaluation = evaluate_unseen(scored, external, release)
    offer = offer_recalibration(
        scored,
        external.people,
        release.manifest,
        evaluation.intervals,
        release.version,
        simulated,
    )
    return Validation(
        release=release.version,
        manifest=release.manifest,
        source=source,
        simulated=simulated,
        known=external.known,
        period=external.find_period(),
        evaluation=evaluation,
        offer=offer,
    )


def _leave_artifacts(validation: Validation, run_id: str) -> None:
    facts = validation.describe(run_id)
    link = locate_run(facts.experiment_id, run_id, host=get_settings().mlflow_tracking_uri)
    create_link_artifact(link, link_text="external validation", key="external-validation-run")
    create_markdown_artifact(write_section(facts), key="external-validation")
