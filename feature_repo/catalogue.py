"""What is stored and what the tabular members take, column by column, in plain words."""

from dataclasses import dataclass
from datetime import timedelta
from functools import cache

from feature_repo.answer_features import ANSWER_FEATURES, STORED_PHQ9_ITEMS
from feature_repo.care_history import care_history
from feature_repo.demographics import demographics
from feature_repo.feast_library import Array, FeatureView
from feature_repo.sequence_outputs import sequence_outputs
from feature_repo.stored_views import StoredFeature, StoredView
from feature_repo.survey_history import survey_history
from feature_repo.wearable_windows import wearable_windows
from feature_repo.weekly_sequence import weekly_sequence

#: Views as they are stored, the on-demand one left out.
STORED_VIEWS: tuple[FeatureView, ...] = (
    survey_history,
    wearable_windows,
    care_history,
    demographics,
    weekly_sequence,
)

#: Every view with a table of its own; outputs of sequence members are no model inputs.
TABLED_VIEWS = (*STORED_VIEWS, sequence_outputs)

#: Stored only so that request_answers can compare with them.
COMPARED_ONLY = frozenset(
    {*STORED_PHQ9_ITEMS, "stored_phq9_total", "stored_phq9_at", "stored_gad7_total", "birth_year"}
)


@dataclass(frozen=True)
class ModelInput:
    """One input column; `data_type` is the consent its value needs (None: none of them)."""

    name: str
    label: str
    unit: str
    data_type: str | None


@cache
def list_model_inputs() -> tuple[ModelInput, ...]:
    """Return the columns every tabular member takes, in the order they take them."""
    answered = [
        ModelInput(name, label, unit, None if name == "age" else "survey")
        for name, (label, unit) in ANSWER_FEATURES.items()
    ]
    stored = [
        ModelInput(field.name, field.description, field.tags["unit"], view.tags.get("data_type"))
        for view in STORED_VIEWS
        if view is not weekly_sequence
        for field in view.features
        if field.name not in COMPARED_ONLY
    ]
    return (*answered, *stored)


def describe_stored_views() -> tuple[StoredView, ...]:
    """Return the stored views as what reads their rows needs to know them."""
    return tuple(_describe_view(view) for view in STORED_VIEWS)


def _describe_view(view: FeatureView) -> StoredView:
    features = tuple(
        StoredFeature(
            name=field.name,
            data_type=field.tags.get("data_type", view.tags.get("data_type")),
            is_sequence=isinstance(field.dtype, Array),
        )
        for field in view.features
    )
    # Feast writes "no expiry" as a time to live of nothing.
    ttl = view.ttl if view.ttl and view.ttl > timedelta(0) else None
    return StoredView(view.name, ttl, features)
