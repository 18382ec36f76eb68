"""The conformal interval of a release: what it is about, how wide it is, and for whom.

It is about `group_size` individuals predicted alike: with probability `coverage`, the share
of them with the outcome lies within it. infra/adr/0005-interval-about-groups.md says why.
"""

from collections.abc import Collection
from itertools import combinations
from typing import Annotated, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from feature_repo.consent_terms import DATA_TYPES

#: How the manifest calls it that no data type is missing.
NONE_MISSING = "none"

Number = TypeVar("Number", float, NDArray[np.float64])


def name_missing(missing: Collection[str]) -> str:
    """Return the name of a set of missing data types: "wearable+emr", "none"."""
    return "+".join(kind for kind in DATA_TYPES if kind in missing) or NONE_MISSING


def list_missing_choices() -> list[tuple[str, ...]]:
    """Return every set of data types that can be missing, the smaller ones first."""
    sizes = range(len(DATA_TYPES) + 1)
    return [choice for size in sizes for choice in combinations(DATA_TYPES, size)]


class ConformalInterval(BaseModel):
    """The interval of a probability p is p plus and minus scale times spread(p), cut to [0, 1].

    `scales` has one entry for every set of missing data types (`name_missing`); none is below
    that of a subset, so that missing data never narrow an interval. A width above
    `abstain_above` says too little: the release abstains and the case goes to a person.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    coverage: Annotated[float, Field(gt=0, lt=1)]
    group_size: Annotated[int, Field(gt=0)]
    scales: dict[str, Annotated[float, Field(ge=0)]]
    abstain_above: Annotated[float, Field(gt=0)]

    def measure_half_width(self, probability: Number, missing: Collection[str]) -> Number:
        """Return half the width of the interval before it is cut to [0, 1]."""
        return self.scales[name_missing(missing)] * measure_spread(probability, self.group_size)

    @model_validator(mode="after")
    def _know_every_choice(self) -> Self:
        if self.scales.keys() != {name_missing(choice) for choice in list_missing_choices()}:
            raise ValueError("the interval needs one scale for every set of missing data types")
        return self

    @model_validator(mode="after")
    def _never_narrow_by_missing_data(self) -> Self:
        for choice in list_missing_choices():
            for fewer in combinations(choice, max(len(choice) - 1, 0)):
                if self.scales[name_missing(fewer)] > self.scales[name_missing(choice)]:
                    raise ValueError(f"missing {name_missing(choice)} narrows the interval")
        return self


def measure_spread(probability: Number, group_size: int) -> Number:
    """Return the standard deviation of the rate among `group_size` individuals.

    Of a binomial with one outcome each way added (Laplace), so that it is never zero.
    """
    drawn = (probability * group_size + 1) / (group_size + 2)
    return (drawn * (1 - drawn) / group_size) ** 0.5
