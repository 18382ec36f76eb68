"""Features from Feast's online store, through feature_repo's one definition of them.

Importing this module imports Feast: seconds and hundreds of megabytes. Only a starting
worker does.
"""

import threading
from datetime import UTC, datetime

import structlog

from feature_repo.online import (
    Answers,
    FeatureStoreUnavailableError,
    OnlineFeatureReader,
    combine_features,
)
from feature_repo.pseudonyms import PSEUDONYM_LENGTH
from serving.features import Features, FeaturesUnavailableError, Query, Values

log = structlog.get_logger("serving.features")

#: No individual's pseudonym: the first half of an HMAC is not all zeros.
NOBODY = "0" * PSEUDONYM_LENGTH
EMPTY_QUERY = Query(
    index_time=datetime.now(UTC), phq9=None, gad7=None, phq9_total=None, data_types=frozenset()
)


class FeastSource:
    """Opens the store when first needed, and anew after a failure.

    Feast's PostgreSQL store keeps one connection and never replaces it: without a new store, a
    restart of the database would degrade every later screening.
    """

    def __init__(self) -> None:
        self._reader: OnlineFeatureReader | None = None
        self._lock = threading.Lock()

    def read(self, anonymized_id: str, query: Query) -> Features:
        reader = self.open()
        try:
            found = reader.read(anonymized_id, make_answers(query), query.data_types)
        except FeatureStoreUnavailableError as error:
            self._forget(reader)
            raise FeaturesUnavailableError("Feast did not answer") from error
        return Features(found.values, found.timestamps, found.sequences)

    def read_answers_alone(self, query: Query) -> Values:
        return combine_features({}, make_answers(query), query.data_types).values

    def open(self) -> OnlineFeatureReader:
        """Return the reader, or raise FeaturesUnavailableError when Feast has no registry."""
        with self._lock:
            if self._reader is None:
                self._reader = open_reader()
            return self._reader

    def _forget(self, reader: OnlineFeatureReader) -> None:
        with self._lock:
            # Another thread may have opened a new one already.
            if self._reader is reader:
                self._reader = None


def open_reader() -> OnlineFeatureReader:
    try:
        return OnlineFeatureReader()
    # Feast lets through whatever its configuration and its registry's driver raise.
    except Exception as error:
        raise FeaturesUnavailableError("Feast could not be opened") from error


def make_feast_source() -> FeastSource:
    """Return the source, warmed up if Feast is there; a worker starts without it too."""
    source = FeastSource()
    try:
        # The first read is the slow one (1.3 s measured): better now than in a screening.
        source.read(NOBODY, EMPTY_QUERY)
    except FeaturesUnavailableError as error:
        log.error("feature store not read at start", cause=type(error.__cause__).__name__)
    return source


def make_answers(query: Query) -> Answers:
    return Answers(
        index_time=query.index_time,
        phq9=query.phq9,
        gad7=query.gad7,
        phq9_total=query.phq9_total,
    )
