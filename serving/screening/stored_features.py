"""Stored features of individuals, within a deadline, from a reader that can be replaced."""

from collections.abc import Sequence

import structlog

from feature_repo.online_store import FeatureStoreUnavailableError, OnlineReader
from feature_repo.stored_views import StoredRow, StoredView
from serving.database.gathering import GatheredReads

log = structlog.get_logger("serving.features")

Stored = dict[str, StoredRow]


class FeatureGateway:
    """Reads stored rows; screenings of one release that ask meanwhile share a read."""

    def __init__(self, reader: OnlineReader, deadline_seconds: float) -> None:
        self._reader = reader
        self._reads: GatheredReads[tuple[StoredView, ...], StoredRow] = GatheredReads(
            "features", reader.fetch, deadline_seconds
        )
        #: Whether the last read got no answer.
        self.is_away = False

    async def fetch(self, views: Sequence[StoredView], individuals: Sequence[str]) -> Stored | None:
        """Return what is stored of each individual, None when the store is unreachable."""
        try:
            stored = await self._reads.fetch(tuple(views), individuals)
        except (FeatureStoreUnavailableError, TimeoutError) as error:
            log.warning("feature store unavailable", cause=type(error).__name__)
            self.is_away = True
            return None
        self.is_away = False
        return stored

    def close(self) -> None:
        self._reads.close()
        self._reader.close()
