"""Rows for members to learn from: a severity that wanders, and what is seen of it."""

import numpy as np
from numpy.typing import NDArray

from feature_repo.weekly_sequence import SEQUENCE_CHANNELS, SEQUENCE_WEEKS
from flows.datasets.training_set import FUTURE_WEEKS
from flows.models.member import FittingData, Matrix, ModelRows, Sequences

CHANNELS = list(SEQUENCE_CHANNELS)
COLUMNS = 12


def simulate_rows(count: int, seed: int) -> tuple[ModelRows, NDArray[np.bool_], Matrix]:
    """Return rows, whether severity rose, and the weeks after."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, 0.8, (count, SEQUENCE_WEEKS + FUTURE_WEEKS))
    severity = np.clip(rng.normal(8, 5, (count, 1)) + steps.cumsum(axis=1), 0, 27)
    past, future = severity[:, :SEQUENCE_WEEKS], severity[:, SEQUENCE_WEEKS:]
    labels = (future.max(axis=1) >= 10) & (future.max(axis=1) - past[:, -1] >= 3)
    rows = ModelRows(_see_features(past, rng), _see_sequences(past, rng))
    return rows, labels, _hide(future, 0.8, rng)


def simulate_fitting_data(count: int = 600, seed: int = 1) -> FittingData:
    rows, labels, futures = simulate_rows(count, seed)
    stopping, stopping_labels, stopping_futures = simulate_rows(count // 4, seed + 1)
    names = tuple(f"column_{number}" for number in range(COLUMNS))
    return FittingData(
        names, rows, labels, futures, stopping, stopping_labels, stopping_futures, seed
    )


def _see_features(past: NDArray[np.float64], rng: np.random.Generator) -> Matrix:
    noise = rng.normal(0, 3, (len(past), COLUMNS))
    return _hide(past[:, -1:] + noise, 0.3, rng)


def _see_sequences(past: NDArray[np.float64], rng: np.random.Generator) -> Sequences:
    """See PHQ-9 and GAD-7 now and then, wearables of two people in three, one in ten of nothing."""
    shape = (*past.shape, len(CHANNELS))
    seen = np.round(past)[:, :, None] * np.arange(1, shape[2] + 1) + rng.normal(0, 2, shape)
    seen[:, :, 0] = np.round(past)
    seen[:, :, :2] = _hide(seen[:, :, :2], 0.85, rng)
    seen[rng.random(len(past)) < 0.35, :, 2:-1] = np.nan
    seen[rng.random(len(past)) < 0.1] = np.nan
    return seen.astype(np.float32)


def _hide(values: NDArray[np.float64], share: float, rng: np.random.Generator) -> Matrix:
    return np.where(rng.random(values.shape) < share, np.nan, values).astype(np.float32)
