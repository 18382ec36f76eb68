"""Thresholds of trees as float32, the type of the inputs and of ONNX graphs."""

import numpy as np
from numpy.typing import NDArray


def lower_to_float32(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """Lower thresholds to float32: inputs are float32, so no row changes its branch.

    Rounding to the nearest one would send a row that lies between the two elsewhere.
    """
    nearest = thresholds.astype(np.float32)
    return np.where(nearest > thresholds, np.nextafter(nearest, np.float32(-np.inf)), nearest)
