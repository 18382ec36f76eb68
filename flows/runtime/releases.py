"""Shared by flows that move releases: the registry, one move at a time, and notifications."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect.events import emit_event

from flows.runtime.locks import hold_lock
from flows.runtime.notifications import notify
from mlruns_config.manifest import RELEASE_MODEL
from mlruns_config.registry.transitions import Registry, open_registry
from serving.settings import get_settings

MODEL_RETRAINED = "ModelRetrained"
ROLLOUT_ADVANCED = "RolloutAdvanced"
ROLLOUT_STOPPED = "RolloutStopped"
MODEL_PROMOTED = "ModelPromoted"
MODEL_ROLLED_BACK = "ModelRolledBack"

#: What flows that move releases lock.
TRANSITIONS = "transition of a release"


@contextmanager
def hold_registry() -> Iterator[Registry]:
    """Open the registry; no other flow moves a release meanwhile.

    What a flow decides on, a candidate under way say, must still be so when it acts.
    """
    with hold_lock(TRANSITIONS) as engine:
        yield open_registry(get_settings().mlflow_tracking_uri, engine)


def announce(event: str, version: int, message: str, **facts: Any) -> None:
    """Emit an event about a release for automations, and notify people."""
    emit_event(
        event,
        resource={
            "prefect.resource.id": f"model.{RELEASE_MODEL}.{version}",
            "prefect.resource.name": f"{RELEASE_MODEL} {version}",
        },
        payload=facts,
    )
    notify(message)
