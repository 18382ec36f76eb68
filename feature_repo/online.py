"""The features of one individual as of now, for serving.

What is stored comes from a reader of Feast's online store; the answers of the request go
through the same `compute_answer_features` that training gets as on-demand feature view.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from feature_repo.answer_features import (
    GAD7_ANSWERS,
    INDEX_DAY,
    PHQ9_ANSWERS,
    REPORTED_PHQ9_TOTAL,
    SECONDS_PER_DAY,
    compute_answer_features,
)
from feature_repo.online_store import OnlineReader, read_store_configuration
from feature_repo.postgres_reader import PostgresReader
from feature_repo.stored_views import SEQUENCE_WEEKS, StoredRow, StoredView


def open_reader(deadline_seconds: float) -> OnlineReader:
    """Return the reader that suits feature_store.yaml.

    PostgreSQL is read directly, any other store through Feast's own package. No single read
    of PostgreSQL takes longer than `deadline_seconds`.
    """
    kind = read_store_configuration()["online_store"]["type"]
    if kind == "postgres":
        return PostgresReader(deadline_seconds)
    # Here, not at the top: Feast takes two seconds and 170 MB to import.
    from feature_repo.feast_reader import FeastReader

    return FeastReader()


@dataclass(frozen=True)
class Answers:
    """The questionnaires sent with a request; None where nothing was sent."""

    index_time: datetime
    phq9: Sequence[int | None] | None = None
    gad7: Sequence[int | None] | None = None
    phq9_total: int | None = None


@dataclass(frozen=True)
class OnlineFeatures:
    """What is known of one individual.

    `values` are the scalar inputs by name (NaN: missing), `sequences` the weekly arrays,
    `timestamps` the moment each stored view stands for (None: nothing usable is stored).
    """

    values: dict[str, float]
    sequences: dict[str, list[float]] = field(default_factory=dict)
    timestamps: dict[str, datetime | None] = field(default_factory=dict)

    @property
    def is_known(self) -> bool:
        return any(moment is not None for moment in self.timestamps.values())


def combine_features(
    views: Iterable[StoredView], stored: StoredRow, answers: Answers, data_types: frozenset[str]
) -> OnlineFeatures:
    """Blank what consent or age does not cover, then see the answers against the rest."""
    values: dict[str, float] = {}
    sequences: dict[str, list[float]] = {}
    timestamps: dict[str, datetime | None] = {}
    for view in views:
        moment = stored.moments.get(view.name)
        fresh = moment is not None and view.is_fresh(moment, answers.index_time)
        allowed = False
        for feature in view.features:
            consented = feature.data_type is None or feature.data_type in data_types
            allowed = allowed or consented
            value = stored.values.get(feature.name) if fresh and consented else None
            if feature.is_sequence:
                sequences[feature.name] = _fill_weeks(value)
            else:
                values[feature.name] = math.nan if value is None else value
        timestamps[view.name] = moment if fresh and allowed else None
    computed = compute_answer_features({**values, **make_request_fields(answers)})
    values |= {name: float(value) for name, value in computed.items()}
    return OnlineFeatures(values, sequences, timestamps)


def make_request_fields(answers: Answers) -> dict[str, float | None]:
    """Return the fields of Feast's request source for these answers."""
    phq9 = answers.phq9 or [None] * len(PHQ9_ANSWERS)
    gad7 = answers.gad7 or [None] * len(GAD7_ANSWERS)
    return {
        **dict(zip(PHQ9_ANSWERS, phq9, strict=True)),
        **dict(zip(GAD7_ANSWERS, gad7, strict=True)),
        REPORTED_PHQ9_TOTAL: answers.phq9_total,
        INDEX_DAY: answers.index_time.timestamp() / SECONDS_PER_DAY,
    }


def _fill_weeks(weeks: Sequence[float] | None) -> list[float]:
    return [math.nan] * SEQUENCE_WEEKS if weeks is None else list(weeks)
