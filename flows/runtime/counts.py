"""Counts of a run that add up over its tasks."""

from dataclasses import astuple, dataclass
from typing import Self


@dataclass(frozen=True)
class Counts:
    """Base of frozen dataclasses whose fields are all numbers: `+` adds them field by field."""

    def __add__(self, other: Self) -> Self:
        return type(self)(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))
