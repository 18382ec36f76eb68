"""Features from Feast's online store, through feature_repo's one definition of them.

Importing this module imports Feast: seconds and hundreds of megabytes. Only a starting
worker does.
"""

import threading

import structlog

from feature_repo.online import (
    Answers,
    FeatureStoreUnavailableError,
    OnlineFeatureReader,
    combine_features,
)
from serving.features import Features, FeaturesUnavailableError, Query, Values

log = structlog.get_logger("serving.features")


class FeastSource:
    """Opens the store when first needed, and again after it could not be opened."""

    def __init__(self) -> None:
        self._reader: OnlineFeatureReader | None = None
        self._lock = threading.Lock()

    def read(self, anonymized_id: str, query: Query) -> Features:
        reader = self.open()
        try:
            found = reader.read(anonymized_id, make_answers(query), query.data_types)
        except FeatureStoreUnavailableError as error:
            raise FeaturesUnavailableError("Feast did not answer") from error
        return Features(found.values, found.timestamps)

    def read_answers_alone(self, query: Query) -> Values:
        return combine_features({}, make_answers(query), query.data_types).values

    def open(self) -> OnlineFeatureReader:
        """Return the reader, or raise FeaturesUnavailableError when Feast has no registry."""
        with self._lock:
            if self._reader is None:
                self._reader = open_reader()
            return self._reader


def open_reader() -> OnlineFeatureReader:
    try:
        return OnlineFeatureReader()
    # Feast lets through whatever its configuration and its registry's driver raise.
    except Exception as error:
        raise FeaturesUnavailableError("Feast could not be opened") from error


def make_feast_source() -> FeastSource:
    """Return the source, opened if Feast is there; a worker starts without it too."""
    source = FeastSource()
    try:
        source.open()
    except FeaturesUnavailableError as error:
        log.error("feature store not opened", cause=type(error.__cause__).__name__)
    return source


def make_answers(query: Query) -> Answers:
    return Answers(
        index_time=query.index_time,
        phq9=query.phq9,
        gad7=query.gad7,
        phq9_total=query.phq9_total,
    )
