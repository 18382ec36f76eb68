"""Puts a release together: weights, calibration, interval, score map, pins, plain words."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, cast

import numpy as np
import polars as pl

from feature_repo.catalogue import ModelInput, describe_stored_views, list_model_inputs
from feature_repo.consent_terms import DATA_TYPES
from feature_repo.individual import JOIN_KEY
from feature_repo.screening_v1 import screening_v1
from feature_repo.weekly_sequence import SEQUENCE_CHANNELS, SEQUENCE_WEEKS
from flows.models.member import FittedMember, Matrix, ModelRows, Probabilities
from flows.models.stacking import (
    calibrate,
    choose_calibration,
    list_data_type_subsets,
    make_score_map,
    measure_interval,
    stack,
)
from flows.training_set import TrainingSet
from mlruns_config.release import (
    Calibration,
    ChannelDescription,
    FeatureDescription,
    MemberPin,
    ReleaseManifest,
    SequenceDescription,
    Stacker,
)

DataType = Literal["survey", "wearable", "emr"]


def assemble_release(
    training_set: TrainingSet,
    members: Mapping[str, FittedMember],
    pins: list[MemberPin],
    stacker: Stacker,
    lineage: dict[str, Any],
    run_id: str,
    seed: int,
) -> ReleaseManifest:
    """Calibrate on individuals no member has seen and write everything down."""
    chosen = training_set.split.calibration
    rows, labels = training_set.rows.select(chosen), training_set.labels[chosen]
    individuals = training_set.frame[JOIN_KEY].filter(pl.Series(chosen))
    stacked = stack(stacker, predict_all(members, rows))
    calibration = choose_calibration(stacked, labels, individuals)
    by_missing = [
        predict_without(members, stacker, calibration, rows, missing)
        for missing in range(len(DATA_TYPES) + 1)
    ]
    return ReleaseManifest(
        created_at=datetime.now(UTC),
        training_run_id=run_id,
        feature_service=screening_v1.name,
        features=describe_features(training_set.rows.features[training_set.split.fitting]),
        sequence=describe_sequence(),
        stored_views=list(describe_stored_views()),
        members=pins,
        stacker=stacker,
        calibration=calibration,
        conformal=measure_interval(by_missing, labels, seed),
        score_map=make_score_map(by_missing[0]),
        lineage=lineage,
    )


def predict_all(members: Mapping[str, FittedMember], rows: ModelRows) -> dict[str, Probabilities]:
    return {name: member.predict(rows) for name, member in members.items()}


def predict_release(
    members: Mapping[str, FittedMember], manifest: ReleaseManifest, rows: ModelRows
) -> Probabilities:
    """Return the calibrated probability of each row."""
    return calibrate(manifest.calibration, stack(manifest.stacker, predict_all(members, rows)))


def predict_without(
    members: Mapping[str, FittedMember],
    stacker: Stacker,
    calibration: Calibration,
    rows: ModelRows,
    missing: int,
) -> Probabilities:
    """Return calibrated probabilities with `missing` data types taken away, row by row in turn.

    Which types are taken rotates over the rows, so that the width of an interval speaks of
    any choice of them.
    """
    subsets = list_data_type_subsets(list(DATA_TYPES), missing)
    turn = np.arange(len(rows)) % len(subsets)
    probabilities = np.empty(len(rows))
    for number, subset in enumerate(subsets):
        chosen = turn == number
        blanked = blank_data_types(rows.select(chosen), subset)
        probabilities[chosen] = calibrate(
            calibration, stack(stacker, predict_all(members, blanked))
        )
    return probabilities


def blank_data_types(rows: ModelRows, data_types: tuple[str, ...]) -> ModelRows:
    """Return a copy of `rows` without the columns and channels of these data types."""
    columns = [column.data_type in data_types for column in list_model_inputs()]
    channels = [data_type in data_types for _, _, data_type in SEQUENCE_CHANNELS.values()]
    features, sequences = rows.features.copy(), rows.sequences.copy()
    features[:, columns] = np.nan
    sequences[:, :, channels] = np.nan
    return ModelRows(features, sequences)


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
        known = values[~np.isnan(values)]
        low, high = np.quantile(known, [0.1, 0.9]) if known.size else (None, None)
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
