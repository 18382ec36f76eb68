"""Data types in the rows of the models: which columns are whose, taking them away.

What can be missing as a whole: each data type, and the history of questionnaires where today's
answers are known. A missing pattern is a set of them (`mlruns_config.missing`).
"""

from dataclasses import replace
from functools import cache
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from feature_repo.consent_terms import DATA_TYPES
from flows.datasets.rows import ModelRows, concatenate_rows
from flows.models.member import FittingData
from mlruns_config.missing import PARTS, belongs_to, list_patterns, name_pattern


def blank_data_types(
    rows: ModelRows, data_types: tuple[str, ...], names: tuple[str, ...] | None = None
) -> ModelRows:
    """Return a copy of `rows` without the columns and channels of these data types.

    `names` are those of the columns, by default the model inputs.
    """
    # Here, not at the top: Feast imports torch, which the tabular members do without.
    from feature_repo.weekly_sequence import SEQUENCE_CHANNELS

    channels = [data_type in data_types for _, _, data_type in SEQUENCE_CHANNELS.values()]
    features, sequences = rows.features.copy(), rows.sequences.copy()
    for data_type in data_types:
        features[:, find_columns(data_type, names)] = np.nan
    sequences[:, :, channels] = np.nan
    return ModelRows(features, sequences)


@cache
def find_columns(part: str, names: tuple[str, ...] | None = None) -> NDArray[np.bool_]:
    """Return which columns are of a data type or of HISTORY, bool [columns].

    `names` are those of the columns, by default the model inputs; a column that is not a model
    input is of no data type.
    """
    # Here, not at the top, for the same reason.
    from feature_repo.catalogue import list_model_inputs

    data_types = {column.name: column.data_type for column in list_model_inputs()}
    names = names or tuple(data_types)
    found = np.array([belongs_to(part, name, data_types.get(name)) for name in names])
    found.flags.writeable = False  # one array for every caller
    return found


def find_patterns(rows: ModelRows) -> NDArray[np.str_]:
    """Return the name of each row's missing pattern, as serving names it. Text [rows]."""
    is_present = ~np.isnan(rows.features)
    lacking = np.column_stack([~is_present[:, find_columns(part)].any(axis=1) for part in PARTS])
    combinations, which = np.unique(lacking, axis=0, return_inverse=True)
    names = [name_pattern(list(compress(PARTS, combination))) for combination in combinations]
    return np.array(names)[which.ravel()]


def add_blanked_copies(data: FittingData) -> FittingData:
    """Return the data with one copy of each row that lacks a pattern drawn at random.

    A model learns from them what is left to say when whole parts are missing, instead of
    reading a missing questionnaire as some answer.
    """
    random = np.random.default_rng(data.seed)
    patterns = [pattern for pattern in list_patterns() if pattern]
    drawn = random.integers(0, len(patterns), len(data.rows))
    copies = ModelRows(data.rows.features.copy(), data.rows.sequences.copy())
    for number, pattern in enumerate(patterns):
        chosen = drawn == number
        blanked = blank_data_types(copies.select(chosen), pattern, data.names)
        copies.features[chosen], copies.sequences[chosen] = blanked.features, blanked.sequences
    return replace(
        data,
        rows=concatenate_rows([data.rows, copies]),
        labels=np.concatenate([data.labels, data.labels]),
        futures=np.concatenate([data.futures, data.futures]),
    )


def keep_features(data: FittingData) -> FittingData:
    """Return the data without the weeks, which only networks read: their copies are the largest."""
    rows, stopping = (
        ModelRows(part.features, part.sequences[:, :0]) for part in (data.rows, data.stopping_rows)
    )
    return replace(data, rows=rows, stopping_rows=stopping)


def find_missing(rows: ModelRows) -> NDArray[np.bool_]:
    """Return for each row which of DATA_TYPES has no value at all, bool [rows, data types].

    As serving counts them: by the features, of which the weekly sequence is made too.
    """
    is_present = ~np.isnan(rows.features)
    return np.column_stack([~is_present[:, find_columns(kind)].any(axis=1) for kind in DATA_TYPES])
