"""What flows that move releases share: the registry, one at a time, and how moves are told."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect.events import emit_event
from sqlalchemy import Engine, text

from flows.notify import notify
from mlruns_config.registry import Registry, open_registry
from mlruns_config.release import RELEASE_MODEL
from serving.database.sessions import create_database_engine
from serving.settings import get_settings

MODEL_RETRAINED = "ModelRetrained"
ROLLOUT_ADVANCED = "RolloutAdvanced"
ROLLOUT_STOPPED = "RolloutStopped"
MODEL_PROMOTED = "ModelPromoted"
MODEL_ROLLED_BACK = "ModelRolledBack"

#: Name of the lock (hashed by PostgreSQL) under which flows move releases.
LOCK = "mhras registry transitions"


@contextmanager
def hold_registry() -> Iterator[Registry]:
    """Open the registry; no other flow moves a release meanwhile.

    What a flow decides on, a candidate under way say, must still be so when it acts.
    """
    engine = open_engine()
    try:
        # The lock is the connection's, which is closed below whatever happens.
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("SELECT pg_advisory_lock(hashtext(:name))"), {"name": LOCK})
            yield open_registry(get_settings().mlflow_tracking_uri, engine)
    finally:
        engine.dispose()


def open_engine() -> Engine:
    return create_database_engine(get_settings().database_url.get_secret_value())


def announce(event: str, version: int, message: str, **facts: Any) -> None:
    """Emit an event about a release, which automations hear, and tell people."""
    emit_event(
        event,
        resource={
            "prefect.resource.id": f"model.{RELEASE_MODEL}.{version}",
            "prefect.resource.name": f"{RELEASE_MODEL} {version}",
        },
        payload=facts,
    )
    notify(message)
