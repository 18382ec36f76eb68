"""The model families by name; each is imported only when it is fitted.

pytorch-forecasting takes seconds and half a gigabyte to import, which a training of the
tabular members alone need not pay.
"""

from collections.abc import Iterable
from importlib import import_module
from typing import Any

from flows.models.member import FITS_AT_ONCE
from flows.models.refits import Refit

#: The family every release has; other members join only where they improve on it.
BASELINE = "logistic_regression"
FAMILIES = ("logistic_regression", "lightgbm", "isolation_forest", "rnn", "tft")
#: The family that estimates no outcome: it measures how unlike the training data a case is.
UNFAMILIARITY = "isolation_forest"
#: Families that are cheap enough to be fitted again on resampled people, and for each outcome.
REFITTED_FAMILIES = ("logistic_regression", "lightgbm")
#: What fits in seconds: the members of a first release.
TABULAR_FAMILIES = ("logistic_regression", "lightgbm", "isolation_forest")


class UnknownFamilyError(ValueError):
    """A requested member belongs to no family."""


def load_families(names: Iterable[str]) -> dict[str, Any]:
    """Return how each named family is fitted, the baseline always among them.

    A family's `fit` is a `flows.models.member.FitMember`; that of UNFAMILIARITY gives a forest.
    Raises UnknownFamilyError naming those that do not exist.
    """
    requested = list(dict.fromkeys([BASELINE, *names]))
    unknown = [name for name in requested if name not in FAMILIES]
    if unknown:
        raise UnknownFamilyError(
            f"no model family is called {', '.join(unknown)}; there are {', '.join(FAMILIES)}"
        )
    return {name: import_module(f"flows.models.{name}").fit for name in requested}


def count_at_once(family: str) -> int:
    """Return how many fits of a family may run side by side: torch seeds the whole process."""
    return FITS_AT_ONCE if family in REFITTED_FAMILIES else 1


def load_refits(names: Iterable[str]) -> dict[str, Refit]:
    """Return how those of the named families are refitted that can be."""
    return {
        name: import_module(f"flows.models.{name}").refit
        for name in names
        if name in REFITTED_FAMILIES
    }
