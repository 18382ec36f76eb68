"""The model families by name; each is imported only when it is fitted.

pytorch-forecasting takes seconds and half a gigabyte to import, which a training of the
tabular members alone need not pay.
"""

from collections.abc import Iterable
from concurrent.futures import Executor
from functools import partial
from importlib import import_module
from typing import Any

from flows.models.refits import Refit
from flows.models.side_by_side import FitEach, fit_in_processes, fit_in_threads

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


def find_fit_each(family: str, other: Executor) -> FitEach:
    """Return how a family is fitted to several parts of the rows; networks use `other` too."""
    return fit_in_threads if family in REFITTED_FAMILIES else partial(fit_in_processes, other)


def load_refits(names: Iterable[str]) -> dict[str, Refit]:
    """Return how those of the named families are refitted that can be."""
    return {
        name: import_module(f"flows.models.{name}").refit
        for name in names
        if name in REFITTED_FAMILIES
    }
