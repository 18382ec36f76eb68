"""Puts a release together: weights, calibration, score map, pins, plain words."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import numpy as np
import polars as pl

from feature_repo.catalogue import ModelInput, describe_stored_views, list_model_inputs
from feature_repo.consent_terms import DataType
from feature_repo.outcomes import Outcome
from feature_repo.screening_v1 import screening_v1
from feature_repo.stored_views import JOIN_KEY
from feature_repo.weekly_sequence import SEQUENCE_CHANNELS, SEQUENCE_WEEKS
from flows.datasets.labels import INDEX_DATE
from flows.datasets.rows import Labels, Matrix, ModelRows, Probabilities
from flows.datasets.training_set import TrainingSet
from flows.models.calibration import MAPS, choose_calibration
from flows.models.data_types import blank_data_types, find_patterns
from flows.models.interval import Patterns, calibrate_stacked, predict_head
from flows.models.out_of_fold import Predictors
from flows.models.stacking import make_score_map, stack
from mlruns_config.heads import Head, Stacker
from mlruns_config.manifest import (
    ChannelDescription,
    FeatureDescription,
    MemberPin,
    ReleaseManifest,
    SequenceDescription,
)
from mlruns_config.missing import list_patterns, name_pattern


@dataclass(frozen=True)
class UnseenRows:
    """Rows with predictors that never saw the individuals they are about.

    The calibration individuals are asked of the members themselves, the fitting ones of the
    members of their fold (cross-conformal, Vovk 2015): three times the rows to calibrate on.
    """

    parts: list[tuple[Predictors, ModelRows]]
    labels: Labels
    individuals: pl.Series
    index_dates: pl.Series

    def stack(self, stacker: Stacker, missing: tuple[str, ...] = ()) -> Probabilities:
        """Return the stacked probability of each row, these data types taken away."""
        return np.concatenate(
            [
                stack(stacker, predict_weighed(members, stacker, blank_data_types(rows, missing)))
                for members, rows in self.parts
            ]
        )

    def find_patterns(self) -> Patterns:
        """Return the name of each row's own missing pattern."""
        return np.concatenate([find_patterns(rows) for _, rows in self.parts])


def gather_unseen(
    training_set: TrainingSet, members: Predictors, cross_fitted: Predictors
) -> UnseenRows:
    """Return the fitting and the calibration rows, each with members that do not know them."""
    asked = [(training_set.split.fitting, cross_fitted), (training_set.split.calibration, members)]
    # Fitted on everything, a release has no calibration individuals: the folds are all there is.
    masks = [mask for mask, _ in asked if mask.any()]
    frame = pl.concat([training_set.frame.filter(pl.Series(mask)) for mask in masks])
    return UnseenRows(
        parts=[(those, training_set.rows.select(mask)) for mask, those in asked if mask.any()],
        labels=np.concatenate([training_set.labels[mask] for mask in masks]),
        individuals=frame[JOIN_KEY],
        index_dates=frame[INDEX_DATE],
    )


def assemble_head(
    outcome: Outcome, unseen: UnseenRows, stacker: Stacker
) -> tuple[Head, Probabilities]:
    """Calibrate a stack on individuals that the asked members have not seen.

    Returns the calibrated probabilities of their rows too, float64 [rows].
    """
    stacked = {pattern: unseen.stack(stacker, pattern) for pattern in list_patterns()}
    calibration = choose_calibration(
        stacked[()], unseen.labels, unseen.individuals, unseen.index_dates
    )
    fit_map = MAPS[calibration.kind]
    head = Head(
        outcome=outcome.key,
        stacker=stacker,
        calibration=calibration,
        calibrations={
            name_pattern(pattern): fit_map(probabilities, unseen.labels)
            for pattern, probabilities in stacked.items()
        },
    )
    return head, calibrate_stacked(head, stacked[()], unseen.find_patterns())


def assemble_release(
    training_set: TrainingSet,
    head: Head,
    probabilities: Probabilities,
    pins: list[MemberPin],
    lineage: dict[str, Any],
    run_id: str,
) -> ReleaseManifest:
    """Return the manifest of a release; `probabilities` are of people its members did not see.

    Float64 [rows] for each member.
    """
    return ReleaseManifest(
        created_at=datetime.now(UTC),
        training_run_id=run_id,
        feature_service=screening_v1.name,
        features=describe_features(training_set.rows.features[training_set.split.fitting]),
        sequence=describe_sequence(),
        stored_views=list(describe_stored_views()),
        members=pins,
        outcome=head.outcome,
        stacker=head.stacker,
        calibration=head.calibration,
        calibrations=head.calibrations,
        uncertainty=head.uncertainty,
        score_map=make_score_map(probabilities),
        lineage=lineage,
    )


def predict_all(members: Predictors, rows: ModelRows) -> dict[str, Probabilities]:
    return {name: member.predict(rows) for name, member in members.items()}


def predict_weighed(
    members: Predictors, stacker: Stacker, rows: ModelRows
) -> dict[str, Probabilities]:
    """Ask the members with a weight; where none has one, the first, to have a row for a row.

    Float64 [rows] for each member.
    """
    weighed = [name for name in members if name in stacker.coefficients] or list(members)[:1]
    return predict_all({name: members[name] for name in weighed}, rows)


def predict_release(
    members: Predictors, manifest: ReleaseManifest, rows: ModelRows
) -> Probabilities:
    """Return the calibrated probability of the priority's outcome for each row. Float64 [rows]."""
    return predict_head(members, manifest.priority, rows)


def describe_sequence() -> SequenceDescription:
    channels = [
        ChannelDescription(name=name, label=label, unit=unit, data_type=cast(DataType, data_type))
        for name, (label, unit, data_type) in SEQUENCE_CHANNELS.items()
    ]
    return SequenceDescription(weeks=SEQUENCE_WEEKS, channels=channels)


def describe_features(inputs: Matrix) -> list[FeatureDescription]:
    """Return every column in plain words with its usual range among the fitting rows."""
    described = []
    for column, values in zip(list_model_inputs(), inputs.T, strict=True):
        present = values[~np.isnan(values)]
        low, high = np.quantile(present, [0.1, 0.9]) if present.size else (None, None)
        described.append(_describe(column, low, high))
    return described


def _describe(
    column: ModelInput, low: np.floating[Any] | None, high: np.floating[Any] | None
) -> FeatureDescription:
    return FeatureDescription(
        name=column.name,
        label=column.label,
        unit=column.unit,
        data_type=cast(DataType | None, column.data_type),
        usual_low=None if low is None else float(low),
        usual_high=None if high is None else float(high),
    )
