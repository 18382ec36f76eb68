"""Feast's online store through Feast's own package: any store that feature_store.yaml names.

Importing this module imports Feast: seconds and hundreds of megabytes.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from feature_repo.feast_library import FeatureStore
from feature_repo.online_store import REPOSITORY, FeatureStoreUnavailableError
from feature_repo.stored_views import JOIN_KEY, StoredRow, StoredView


class FeastReader:
    """Opens the store when first needed, and again after a failure.

    Feast's stores keep a connection and do not replace a broken one: without a new store, a
    restart of the database would degrade every later screening.
    """

    def __init__(self) -> None:
        self._store: FeatureStore | None = None

    def fetch(
        self, views: Sequence[StoredView], individuals: Sequence[str]
    ) -> dict[str, StoredRow]:
        """Return what is stored of each individual; raises FeatureStoreUnavailableError."""
        references = [f"{view.name}:{feature.name}" for view in views for feature in view.features]
        try:
            store = self._store or FeatureStore(repo_path=str(REPOSITORY))
            self._store = store
            response = store.get_online_features(
                features=references,
                entity_rows=[{JOIN_KEY: individual} for individual in individuals],
            )
        # Feast lets errors of its configuration and of the store's driver through.
        except Exception as error:
            self._store = None
            raise FeatureStoreUnavailableError(type(error).__name__) from error
        columns = response.to_dict(include_event_timestamps=True)
        return {
            individual: _read_row(views, columns, n) for n, individual in enumerate(individuals)
        }

    def close(self) -> None:
        self._store = None


def _read_row(views: Sequence[StoredView], columns: dict[str, Any], number: int) -> StoredRow:
    names = [feature.name for view in views for feature in view.features]
    values = {name: columns[name][number] for name in names}
    moments = {}
    for view in views:
        seconds = columns[f"{view.features[0].name}__ts"][number]
        if seconds:
            moments[view.name] = datetime.fromtimestamp(seconds, UTC)
    return StoredRow({name: value for name, value in values.items() if value is not None}, moments)
