"""The erasure flow: removes individuals erased from the database from every other store.

Its work is what the API has queued (`serving/individuals/erasure.py`). Each store is emptied and
reported separately; a run after a cut does what is left.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import polars as pl
from mlflow import MlflowClient
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from sqlalchemy import Engine

from feature_repo.catalogue import TABLED_VIEWS
from feature_repo.feature_tables import locate_feature_table
from feature_repo.postgres_reader import erase_online_rows
from feature_repo.stored_views import JOIN_KEY
from flows.lake.parts import RETRACTIONS, erase_retractions, name_parts
from flows.lake.tables import SET_ASIDE, erase_rows, locate_table, scan_table
from flows.runtime.database import open_database
from flows.runtime.notifications import NOTIFICATION_HOOKS
from flows.runtime.retries import IO_RETRIES
from flows.sources.contract import CONSENTS, TABLES
from mlruns_config.manifest import RELEASE_MODEL
from serving.database.sessions import open_session
from serving.individuals.erasure import DONE, list_queued, remove_again, report_store
from serving.settings import get_settings

FAILED = "failed"
#: Tag of a release version: number of individuals in its training data who were erased since.
ERASED_SINCE_TAG = "erasures.since_training"


class ErasureIncompleteError(RuntimeError):
    """A store could not be emptied; it stays queued. The message names the store and the cause."""


@dataclass(frozen=True)
class StoreReport:
    """What was removed of one erasure from one store; counts and versions only."""

    erasure_id: str
    store: str
    state: str
    details: dict[str, Any]


@flow(name="erasure", timeout_seconds=6 * 3600, **NOTIFICATION_HOOKS)
def erase_queued() -> list[StoreReport]:
    """Empty every store of every erasure that is queued; return what was done.

    Raises ErasureIncompleteError, after trying all, when a store could not be emptied.
    """
    with open_database() as engine:
        reports = [
            report
            for erasure_id, person in find_queued(engine)
            for report in _erase_everywhere(engine, erasure_id, person)
        ]
    if reports:
        rows = [asdict(report) | {"details": str(report.details)} for report in reports]
        create_table_artifact(rows, key="erasures")
    get_run_logger().info(
        "%d stores of erasures done", sum(report.state == DONE for report in reports)
    )
    failed = sorted({report.store for report in reports if report.state == FAILED})
    if failed:
        raise ErasureIncompleteError(f"not emptied, and still queued: {', '.join(failed)}")
    return reports


def find_queued(engine: Engine) -> list[tuple[UUID, str]]:
    with open_session(engine) as session:
        return [(erasure.id, erasure.anonymized_id) for erasure in list_queued(session)]


def _erase_everywhere(engine: Engine, erasure_id: UUID, person: str) -> list[StoreReport]:
    # First the time that identifies the releases with this individual: its rows are about to go.
    seen_since = find_first_seen(get_settings().lake_url, person)
    with open_session(engine) as session:
        # A screening that was committed in the moment of the erasure.
        remove_again(session, person)
    work: dict[str, Callable[[], dict[str, Any]]] = {
        "artifacts": lambda: mark_releases(erasure_id, seen_since),
        "lake": lambda: erase_from_lake(person),
        "feature_store": lambda: erase_from_feature_store(person),
    }
    return [_empty_store(engine, erasure_id, store, erase) for store, erase in work.items()]


def _empty_store(
    engine: Engine, erasure_id: UUID, store: str, erase: Callable[[], dict[str, Any]]
) -> StoreReport:
    try:
        state, details = DONE, erase()
    # After any error the other stores are emptied, and this one stays queued.
    except Exception as error:
        get_run_logger().error("%s not emptied: %s", store, type(error).__name__)
        state, details = FAILED, {"cause": type(error).__name__}
    with open_session(engine) as session:
        report_store(session, erasure_id, store, state, details)
    return StoreReport(str(erasure_id), store, state, details)


def find_first_seen(lake_url: str, person: str) -> datetime | None:
    """Return when the first landed row of an individual came in, None when none is there."""
    moments = [
        scan_table(lake_url, name)
        .filter(pl.col(JOIN_KEY) == person)
        .select(pl.col("ingested_at").min())
        .collect()
        .item()
        for name in TABLES
        if name != CONSENTS.name
    ]
    seen = [moment for moment in moments if moment is not None]
    return min(seen, default=None)


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def mark_releases(erasure_id: UUID, seen_since: datetime | None) -> dict[str, Any]:
    """Count the erasure on every release whose training may have seen the individual.

    MLflow holds no rows of individuals: nothing is removed there. A model's knowledge of
    an individual ends with the next training, whose data no longer include them; until then the
    tag informs a reviewer. A version is marked once for each erasure.
    """
    client = MlflowClient(get_settings().mlflow_tracking_uri)
    marked = []
    for version in client.search_model_versions(f"name='{RELEASE_MODEL}'"):
        registered_at = version.creation_timestamp / 1000
        if seen_since is None or registered_at < seen_since.timestamp():
            continue
        mark = f"erasure.{erasure_id}"
        if mark not in version.tags:
            count = int(version.tags.get(ERASED_SINCE_TAG, "0")) + 1
            client.set_model_version_tag(RELEASE_MODEL, version.version, mark, "counted")
            client.set_model_version_tag(
                RELEASE_MODEL, version.version, ERASED_SINCE_TAG, str(count)
            )
        marked.append(int(version.version))
    return {"trained_with_the_individual": sorted(marked)}


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def erase_from_lake(person: str) -> dict[str, Any]:
    """Remove an individual from landed tables, the records behind them and what was set aside."""
    lake_url = get_settings().lake_url
    names = [name for name in TABLES if name != CONSENTS.name]
    tables = [
        *names,
        *(f"{SET_ASIDE}/{name}" for name in names),
        *(name_parts(name) for name in TABLES),
    ]
    # First what names the person's resources: they tell which retractions are the person's.
    retractions = erase_retractions(lake_url, person)
    erased = {name: erase_rows(locate_table(lake_url, name), person) for name in tables}
    return erased | {RETRACTIONS: retractions}


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def erase_from_feature_store(person: str) -> dict[str, Any]:
    """Remove an individual from every feature table and from the online store."""
    names = [view.name for view in TABLED_VIEWS]
    offline = {name: erase_rows(locate_feature_table(name), person) for name in names}
    return {"offline": offline, "online": erase_online_rows(names, person)}
