"""Random processes that several tables of the simulated cohort share."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.special import ndtri

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


def draw_autoregression(
    rng: np.random.Generator, people: int, steps: int, persistence: float
) -> Floats:
    """Return a stationary first-order autoregression of variance 1, [people, steps]."""
    shocks = rng.standard_normal((people, steps), dtype=np.float32)
    shocks[:, 1:] *= np.sqrt(1 - persistence**2)
    return np.asarray(lfilter([1.0], [1.0, -persistence], shocks, axis=1))


def draw_persistent_flags(
    rng: np.random.Generator, chance: Floats, own: float, slow: float, persistence: float
) -> Bools:
    """Return flags with this chance each, [people, days], that repeat within individuals.

    A normal variable below the quantile of the chance raises the flag. Of its variance, `own` is
    the individual's, `slow` an autoregression over days with this persistence, the rest noise.
    """
    people, days = chance.shape
    index = np.sqrt(own) * rng.standard_normal((people, 1))
    index = index + np.sqrt(slow) * draw_autoregression(rng, people, days, persistence)
    index += np.sqrt(1 - own - slow) * rng.standard_normal((people, days), dtype=np.float32)
    return np.asarray(index < ndtri(chance))


def expit(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-x)))
