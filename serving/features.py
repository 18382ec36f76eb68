"""Feature values of one individual, within a deadline, from a reader that can be replaced.

The reader is `feature_repo.online`; importing it brings Feast, so that happens once, at
start-up, and not where this module is imported.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import structlog

log = structlog.get_logger("serving.features")

#: Reads that may wait for the store at once; a hanging store cannot use up every thread.
CONCURRENT_READS = 32

Values = Mapping[str, float | None]


class FeaturesUnavailableError(Exception):
    """The feature store did not deliver in time."""


class FeatureSource(Protocol):
    """Where feature values come from."""

    def read(self, anonymized_id: str, query: "Query") -> "Features":
        """Return what is stored, seen against the answers sent.

        Raises FeaturesUnavailableError when the store cannot be read.
        """
        ...

    def read_answers_alone(self, query: "Query") -> Values:
        """Return the features that need nothing but the request."""
        ...


@dataclass(frozen=True)
class Query:
    """The answers sent with a request, and the data types that consent allows to read."""

    index_time: datetime
    phq9: Sequence[int | None] | None
    gad7: Sequence[int | None] | None
    phq9_total: int | None
    data_types: frozenset[str]


@dataclass(frozen=True)
class Features:
    """Values by feature (None or NaN: missing), weekly sequences, age of each stored view.

    `degraded`: the store was not read, only the request speaks.
    """

    values: Values
    timestamps: Mapping[str, datetime | None]
    sequences: Mapping[str, Sequence[float]] = field(default_factory=dict)
    degraded: bool = False

    @property
    def is_known(self) -> bool | None:
        """Whether the store knows the individual; None when it could not be asked."""
        if self.degraded:
            return None
        return any(moment is not None for moment in self.timestamps.values())


class FeatureGateway:
    """Reads features in its own threads, so that a read can be given up."""

    def __init__(self, source: FeatureSource, deadline_seconds: float) -> None:
        self._source = source
        self._deadline_seconds = deadline_seconds
        self._pool = ThreadPoolExecutor(CONCURRENT_READS, thread_name_prefix="features")

    def read(self, anonymized_id: str, query: Query) -> Features:
        """Return the store's features, or those of the request alone when it fails."""
        future = self._pool.submit(self._source.read, anonymized_id, query)
        try:
            return future.result(timeout=self._deadline_seconds)
        except (FeaturesUnavailableError, TimeoutError) as error:
            future.cancel()
            log.warning("feature store unavailable", cause=type(error).__name__)
            return Features(self._source.read_answers_alone(query), {}, degraded=True)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def keep_consented(
    values: Values, data_type_of: Mapping[str, str | None], consented: frozenset[str]
) -> dict[str, float | None]:
    """Return the values whose data type is consented to; the others become missing."""
    return {
        name: value
        for name, value in values.items()
        if data_type_of.get(name) is None or data_type_of[name] in consented
    }
