"""Puts a release together: weights, calibration, interval, score map, pins, plain words."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import numpy as np
import polars as pl

from feature_repo.catalogue import ModelInput, describe_stored_views, list_model_inputs
from feature_repo.consent_terms import DataType
from feature_repo.individual import JOIN_KEY
from feature_repo.screening_v1 import screening_v1
from feature_repo.weekly_sequence import SEQUENCE_CHANNELS, SEQUENCE_WEEKS
from flows.datasets.labels import INDEX_DATE
from flows.datasets.rows import Labels, Matrix, ModelRows, Probabilities
from flows.datasets.training_set import TrainingSet
from flows.models.calibration import MAPS, calibrate, choose_calibration
from flows.models.data_types import blank_data_types, find_patterns
from flows.models.interval import measure_interval
from flows.models.out_of_fold import Predictors
from flows.models.stacking import make_score_map, stack
from mlruns_config.interval import list_missing_choices
from mlruns_config.manifest import (
    ChannelDescription,
    FeatureDescription,
    MemberPin,
    ReleaseManifest,
    SequenceDescription,
    Stacker,
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


def gather_unseen(
    training_set: TrainingSet, members: Predictors, cross_fitted: Predictors
) -> UnseenRows:
    """Return the fitting and the calibration rows, each with members that do not know them."""
    masks = (training_set.split.fitting, training_set.split.calibration)
    rows = [training_set.rows.select(mask) for mask in masks]
    frame = pl.concat([training_set.frame.filter(pl.Series(mask)) for mask in masks])
    return UnseenRows(
        parts=list(zip((cross_fitted, members), rows, strict=True)),
        labels=np.concatenate([training_set.labels[mask] for mask in masks]),
        individuals=frame[JOIN_KEY],
        index_dates=frame[INDEX_DATE],
    )


def assemble_release(
    training_set: TrainingSet,
    unseen: UnseenRows,
    pins: list[MemberPin],
    stacker: Stacker,
    lineage: dict[str, Any],
    run_id: str,
    seed: int,
) -> ReleaseManifest:
    """Calibrate on individuals that the asked members have not seen and write all down."""
    calibration = choose_calibration(
        unseen.stack(stacker), unseen.labels, unseen.individuals, unseen.index_dates
    )
    stacked = {pattern: unseen.stack(stacker, pattern) for pattern in list_patterns()}
    calibrations = {
        name_pattern(pattern): MAPS[calibration.kind](probabilities, unseen.labels)
        for pattern, probabilities in stacked.items()
    }
    by_missing = {
        missing: calibrate(calibrations[name_pattern(missing)], stacked[missing])
        for missing in list_missing_choices()
    }
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
        calibrations=calibrations,
        conformal=measure_interval(by_missing, unseen.labels, seed),
        score_map=make_score_map(by_missing[()]),
        lineage=lineage,
    )


def predict_all(members: Predictors, rows: ModelRows) -> dict[str, Probabilities]:
    return {name: member.predict(rows) for name, member in members.items()}


def predict_weighed(
    members: Predictors, stacker: Stacker, rows: ModelRows
) -> dict[str, Probabilities]:
    """Ask the members with a weight; where none has one, the first, to have a row for a row."""
    weighed = [name for name in members if name in stacker.coefficients] or list(members)[:1]
    return predict_all({name: members[name] for name in weighed}, rows)


def predict_release(
    members: Predictors, manifest: ReleaseManifest, rows: ModelRows
) -> Probabilities:
    """Return the calibrated probability of each row."""
    stacked = stack(manifest.stacker, predict_weighed(members, manifest.stacker, rows))
    patterns, calibrated = find_patterns(rows), np.empty(len(rows))
    for pattern in np.unique(patterns):
        chosen = patterns == pattern
        calibrated[chosen] = calibrate(manifest.find_calibration(str(pattern)), stacked[chosen])
    return calibrated


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
