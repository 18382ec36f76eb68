"""Filling missing values for families that cannot take NaN."""

import numpy as np
from numpy.typing import NDArray

from flows.datasets.rows import Matrix


def find_medians(inputs: Matrix) -> NDArray[np.float64]:
    """Return the median of each column; a column that is never known counts as zero.

    Float64 [columns].
    """
    is_present = ~np.isnan(inputs).all(axis=0)
    medians = np.zeros(inputs.shape[1])
    medians[is_present] = np.nanmedian(inputs[:, is_present], axis=0)
    return medians
