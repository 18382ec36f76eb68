"""The features of one individual as of now, for serving.

Stored views come from Feast's online store; the answers of the request go through the same
`compute_answer_features` that training gets as on-demand feature view.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from feast import FeatureStore, FeatureView, Field

from feature_repo.catalogue import STORED_VIEWS
from feature_repo.individual import JOIN_KEY
from feature_repo.request_answers import (
    GAD7_ANSWERS,
    INDEX_DAY,
    PHQ9_ANSWERS,
    REPORTED_PHQ9_TOTAL,
    SECONDS_PER_DAY,
    compute_answer_features,
)
from feature_repo.weekly_sequence import SEQUENCE_WEEKS, weekly_sequence

REPOSITORY = Path(__file__).parent


class FeatureStoreUnavailableError(RuntimeError):
    """The online store did not answer; a screening goes on with what the request carries."""


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
    `timestamps` the moment each stored view stands for (None: nothing stored).
    """

    values: dict[str, float]
    sequences: dict[str, list[float]] = field(default_factory=dict)
    timestamps: dict[str, datetime | None] = field(default_factory=dict)

    @property
    def is_known(self) -> bool:
        return any(moment is not None for moment in self.timestamps.values())


class OnlineFeatureReader:
    """Reads Feast's online store of a repository; safe to share between threads."""

    def __init__(self, repository: Path = REPOSITORY) -> None:
        self._store = FeatureStore(repo_path=str(repository))
        self._references = [
            f"{view.name}:{feature.name}" for view in STORED_VIEWS for feature in view.features
        ]

    def read(
        self, anonymized_id: str, answers: Answers, data_types: frozenset[str]
    ) -> OnlineFeatures:
        """Return the features of `anonymized_id` that consent to `data_types` allows.

        Raises FeatureStoreUnavailableError when the store does not answer.
        """
        stored = self._read_stored(anonymized_id)
        return combine_features(stored, answers, data_types)

    def _read_stored(self, anonymized_id: str) -> dict[str, Any]:
        try:
            response = self._store.get_online_features(
                features=self._references, entity_rows=[{JOIN_KEY: anonymized_id}]
            )
        # Feast lets through whatever the store's driver raises, of several libraries.
        except Exception as error:
            raise FeatureStoreUnavailableError(type(error).__name__) from error
        rows = response.to_dict(include_event_timestamps=True)
        return {name: column[0] for name, column in rows.items()}


def combine_features(
    stored: Mapping[str, Any], answers: Answers, data_types: frozenset[str]
) -> OnlineFeatures:
    """Blank what consent or age does not cover, then see the answers against the rest."""
    values: dict[str, float] = {}
    sequences: dict[str, list[float]] = {}
    timestamps: dict[str, datetime | None] = {}
    for view in STORED_VIEWS:
        allowed = [feature.name for feature in view.features if _allows(view, feature, data_types)]
        moment = _read_timestamp(stored, allowed[0]) if allowed else None
        fresh = moment is not None and _is_fresh(view, moment, answers.index_time)
        timestamps[view.name] = moment if fresh else None
        usable = frozenset(allowed if fresh else ())
        for feature in view.features:
            value = stored.get(feature.name) if feature.name in usable else None
            if view is weekly_sequence:
                sequences[feature.name] = _fill_weeks(value)
            else:
                values[feature.name] = math.nan if value is None else float(value)
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


def _allows(view: FeatureView, feature: Field, data_types: frozenset[str]) -> bool:
    data_type = feature.tags.get("data_type", view.tags.get("data_type"))
    return data_type is None or data_type in data_types


def _is_fresh(view: FeatureView, moment: datetime, now: datetime) -> bool:
    # The online store keeps a row until a newer one comes; only training applies the view's
    # time to live by itself.
    return not view.ttl or now - moment <= view.ttl


def _fill_weeks(weeks: Sequence[float] | None) -> list[float]:
    return [math.nan] * SEQUENCE_WEEKS if weeks is None else [float(week) for week in weeks]


def _read_timestamp(stored: Mapping[str, Any], name: str) -> datetime | None:
    seconds = stored.get(f"{name}__ts")
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
