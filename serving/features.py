"""Stored features of individuals, within a deadline, from a reader that can be replaced."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import structlog

from feature_repo.online import FeatureStoreUnavailableError, OnlineReader
from feature_repo.stored_views import StoredRow, StoredView

log = structlog.get_logger("serving.features")

#: Reads that may wait for the store at once; a hanging store cannot use up every thread.
CONCURRENT_READS = 32


class FeatureGateway:
    """Reads stored rows in its own threads, so that a read can be given up."""

    def __init__(self, reader: OnlineReader, deadline_seconds: float) -> None:
        self._reader = reader
        self._deadline_seconds = deadline_seconds
        self._pool = ThreadPoolExecutor(CONCURRENT_READS, thread_name_prefix="features")
        #: Whether the last read got no answer.
        self.is_away = False

    async def fetch(
        self, views: Sequence[StoredView], individuals: Sequence[str]
    ) -> dict[str, StoredRow] | None:
        """Return what is stored of each individual, None when the store does not answer."""
        future = self._pool.submit(self._reader.fetch, views, individuals)
        try:
            async with asyncio.timeout(self._deadline_seconds):
                found = await asyncio.wrap_future(future)
        except (FeatureStoreUnavailableError, TimeoutError) as error:
            log.warning("feature store unavailable", cause=type(error).__name__)
            self.is_away = True
            return None
        self.is_away = False
        return found

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._reader.close()
