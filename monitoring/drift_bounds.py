"""The bounds beyond which a column of a window has drifted; `drift_null.py` makes them."""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

#: Smaller differences do not matter, of however many people they are: standard deviations, and
#: shares of missing values.
MIN_DISTANCE, MIN_MISSING = 0.05, 0.03
#: Bounds of a release whose reference came without a null (ADR 17).
UNKNOWN_DISTANCE = UNKNOWN_MISSING = 0.1


class Bounds(BaseModel):
    """What a column's distance and change of missing share stay below without drift."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    distance: float
    missing: float


class DriftNull(BaseModel):
    """Bounds by column and number of people, times the root of that number, which evens them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sizes: list[int]
    distances: dict[str, list[float]]
    missing: dict[str, list[float]]
    factors: list[float]

    def find_bounds(self, column: str, people: int, reference_people: int) -> Bounds:
        """Return a column's bounds in a window of so many people.

        The reference is of people met by chance too: the two differ as a smaller window differs
        from everybody.
        """
        size = 1 / (1 / max(people, 1) + 1 / max(reference_people, 1))
        factor = self._read(self.factors, size) / float(np.sqrt(size))
        return Bounds(
            distance=max(MIN_DISTANCE, factor * self._read(self.distances[column], size)),
            missing=max(MIN_MISSING, factor * self._read(self.missing[column], size)),
        )

    def _read(self, values: Sequence[float], size: float) -> float:
        return float(np.interp(np.log(size), np.log(self.sizes), values))
