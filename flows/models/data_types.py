"""Data types in the rows of the models: which columns are whose, taking them away."""

import numpy as np
from numpy.typing import NDArray

from feature_repo.catalogue import list_model_inputs
from feature_repo.consent_terms import DATA_TYPES
from feature_repo.weekly_sequence import SEQUENCE_CHANNELS
from flows.datasets.rows import ModelRows


def blank_data_types(rows: ModelRows, data_types: tuple[str, ...]) -> ModelRows:
    """Return a copy of `rows` without the columns and channels of these data types."""
    channels = [data_type in data_types for _, _, data_type in SEQUENCE_CHANNELS.values()]
    features, sequences = rows.features.copy(), rows.sequences.copy()
    for data_type in data_types:
        features[:, find_columns(data_type)] = np.nan
    sequences[:, :, channels] = np.nan
    return ModelRows(features, sequences)


def find_columns(data_type: str) -> NDArray[np.bool_]:
    """Return which columns of the features are of a data type, bool [columns]."""
    return np.array([column.data_type == data_type for column in list_model_inputs()])


def find_missing(rows: ModelRows) -> NDArray[np.bool_]:
    """Return for each row which of DATA_TYPES has no value at all, bool [rows, data types].

    As serving counts them: by the features, of which the weekly sequence is made too.
    """
    known = ~np.isnan(rows.features)
    return np.column_stack([~known[:, find_columns(kind)].any(axis=1) for kind in DATA_TYPES])
