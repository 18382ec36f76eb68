"""Consents of the people who are screened: known, or read in one query with those of others."""

from datetime import datetime

from sqlalchemy import Engine

from serving.consent.in_force import ConsentCache, KnownConsent
from serving.database.gathering import GatheredReads
from serving.errors import DeadlineExceededError

Consents = tuple[KnownConsent, ...]


class ConsentGateway:
    """Reads consents of the MHRAS database for an event loop; what is known needs no read."""

    def __init__(self, cache: ConsentCache, engine: Engine, deadline_seconds: float) -> None:
        # A read is one statement: no transaction to begin, nothing to roll back.
        reader = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._cache = cache
        self._reads: GatheredReads[None, Consents] = GatheredReads(
            "consents", lambda _kind, individuals: cache.read(reader, individuals), deadline_seconds
        )

    def now(self) -> datetime:
        """Return the database's time, by which consents begin and end."""
        return self._cache.now()

    def get_known(self, anonymized_id: str) -> Consents | None:
        """Return every consent of an individual as of less than a second ago, without waiting.

        None when the database must be read.
        """
        return self._cache.get_known(anonymized_id)

    async def read(self, anonymized_id: str) -> Consents:
        """Return every consent of an individual from the database.

        Raises DeadlineExceededError when it sends nothing in time, and what SQLAlchemy raises.
        """
        try:
            return (await self._reads.fetch(None, [anonymized_id]))[anonymized_id]
        except TimeoutError:
            raise DeadlineExceededError("the screening timed out; send it again") from None

    def close(self) -> None:
        self._reads.close()
