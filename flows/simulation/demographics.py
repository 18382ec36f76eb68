"""Age, sex and ethnicity of simulated individuals: what groups are made of."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flows.simulation.processes import Floats

SEXES = ("female", "male", "other", "unknown")
SEX_SHARES = (0.58, 0.4, 0.01, 0.01)
ETHNICITIES = ("white", "black", "hispanic", "asian", "other")
ETHNICITY_SHARES = (0.58, 0.14, 0.16, 0.08, 0.04)


@dataclass(frozen=True)
class Demographics:
    """Age in years at the first day, sex and ethnicity, [people] each."""

    age: Floats
    sex: NDArray[np.str_]
    ethnicity: NDArray[np.str_]


def draw_demographics(rng: np.random.Generator, people: int) -> Demographics:
    return Demographics(
        age=rng.triangular(18, 32, 80, people),
        sex=rng.choice(SEXES, people, p=SEX_SHARES),
        ethnicity=rng.choice(ETHNICITIES, people, p=ETHNICITY_SHARES),
    )
