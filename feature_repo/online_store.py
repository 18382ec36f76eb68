"""The online store: what a reader of it offers, and its configuration (feature_store.yaml)."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import yaml

from feature_repo.stored_views import StoredRow, StoredView

REPOSITORY = Path(__file__).parent


class FeatureStoreUnavailableError(RuntimeError):
    """The online store did not answer; a screening goes on with what the request carries."""


class OnlineReader(Protocol):
    """Reads rows of the online store; safe to share between threads."""

    def fetch(
        self, views: Sequence[StoredView], individuals: Sequence[str]
    ) -> dict[str, StoredRow]:
        """Return what is stored of each individual; raises FeatureStoreUnavailableError."""
        ...

    def close(self) -> None: ...


@cache
def read_store_configuration() -> dict[str, Any]:
    """Return feature_store.yaml with the environment's values still to be filled in."""
    configuration: dict[str, Any] = yaml.safe_load((REPOSITORY / "feature_store.yaml").read_text())
    return configuration
