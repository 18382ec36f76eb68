"""Row types: what members are given of each labelled row, and what they return."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

Matrix = NDArray[np.float32]
#: float32 [rows, weeks, channels], NaN where a week is unknown.
Sequences = NDArray[np.float32]
Rows = NDArray[np.int64] | NDArray[np.bool_]
#: bool [rows]: whether the outcome followed.
Labels = NDArray[np.bool_]
#: float64 [rows], from 0 to 1.
Probabilities = NDArray[np.float64]


@dataclass(frozen=True)
class ModelRows:
    """What members are given of each row; every member takes the part it was made for.

    `features`: float32 [rows, columns of the catalogue]; `sequences`: float32 [rows,
    SEQUENCE_WEEKS, SEQUENCE_CHANNELS], oldest week first. NaN where missing.
    """

    features: Matrix
    sequences: Sequences

    def __len__(self) -> int:
        return len(self.features)

    def select(self, rows: Rows) -> "ModelRows":
        return ModelRows(self.features[rows], self.sequences[rows])


#: Of each row, the name of its individual or a number that stands for it, [rows].
Individuals = NDArray[np.str_] | NDArray[np.int64]


def number_individuals(individuals: pl.Series) -> NDArray[np.int64]:
    """Return the number of each row's individual among all, in the order of their names.

    Int64 [rows]. NumPy sorts texts of its own type twenty times as fast as Python's.
    """
    return np.unique(individuals.to_numpy().astype(np.str_), return_inverse=True)[1]


def concatenate_rows(parts: list[ModelRows]) -> ModelRows:
    return ModelRows(
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.sequences for part in parts]),
    )
