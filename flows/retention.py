"""The retention flow: predictions and landed data older than the site keeps them are removed.

Off unless RETENTION_PREDICTION_DAYS or RETENTION_LAKE_DAYS is set. Features are windows of at most
two years, so a shorter time for the lake shortens histories too.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows.lake.parts import name_parts
from flows.lake.tables import SET_ASIDE, erase_before, has_table, locate_table
from flows.runtime.database import open_database
from flows.runtime.notifications import NOTIFICATION_HOOKS
from flows.runtime.retries import IO_RETRIES
from serving.database.clock import read_database_time
from serving.database.sessions import open_session
from serving.individuals.retention import remove_predictions_before
from serving.settings import Settings, get_settings

#: When a row of each table happened.
HAPPENED = {
    "surveys": "answered_at",
    "wearable_days": "date",
    "emr_events": "started_at",
    "outcomes": "index_date",
}
PREDICTIONS_PER_TRANSACTION = 1000


@dataclass(frozen=True)
class Removed:
    """How many rows of a table were older than the site keeps them."""

    table: str
    kept_days: int
    removed: int


@flow(name="retention", timeout_seconds=6 * 3600, **NOTIFICATION_HOOKS)
def apply_retention() -> list[Removed]:
    """Remove what is older than the settings keep it; return counts by table."""
    settings = get_settings()
    removed = [*remove_predictions(settings), *remove_landed(settings)]
    if removed:
        rows = [asdict(removal) for removal in removed]
        create_table_artifact(rows, key="retention", description="Rows removed by age")
    get_run_logger().info("retention: %s", removed or "no setting, nothing removed")
    return removed


def remove_predictions(settings: Settings) -> list[Removed]:
    days = settings.retention_prediction_days
    return [] if days is None else [Removed("predictions", days, remove_old_predictions(days))]


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def remove_old_predictions(days: int) -> int:
    """Remove predictions older than `days`, a transaction for each thousand."""
    removed = 0
    with open_database() as engine:
        while True:
            with open_session(engine) as session:
                before = read_database_time(session) - timedelta(days=days)
                count = remove_predictions_before(session, before, PREDICTIONS_PER_TRANSACTION)
            removed += count
            if count < PREDICTIONS_PER_TRANSACTION:
                return removed


def remove_landed(settings: Settings) -> list[Removed]:
    days = settings.retention_lake_days
    if days is None:
        return []
    tables = list_dated_tables()
    return [
        Removed(name, days, remove_old_rows(settings.lake_url, name, column, days))
        for name, column in tables.items()
    ]


def list_dated_tables() -> Mapping[str, str]:
    """Return every table of dated rows with its column: landed, parts of rows, set aside."""
    parts = {name_parts(name): column for name, column in HAPPENED.items()}
    aside = {f"{SET_ASIDE}/{name}": column for name, column in HAPPENED.items()}
    return HAPPENED | parts | aside


@task(cache_policy=NO_CACHE, task_run_name="retention-{table}", **IO_RETRIES)
def remove_old_rows(lake_url: str, table: str, column: str, days: int) -> int:
    """Remove rows older than `days` from a table, its earlier versions and its log."""
    if not has_table(lake_url, table):
        return 0
    return erase_before(
        locate_table(lake_url, table), column, datetime.now(UTC) - timedelta(days=days)
    )
