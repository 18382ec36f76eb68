"""The model families by name; each is imported only when it is fitted.

pytorch-forecasting takes seconds and half a gigabyte to import, which a training of the
tabular members alone need not pay.
"""

from collections.abc import Iterable
from importlib import import_module

from flows.models.member import FitMember

#: The family every release has; other members join only where they improve on it.
BASELINE = "logistic_regression"
FAMILIES = ("logistic_regression", "lightgbm", "isolation_forest", "rnn", "tft")
#: What fits in seconds: the members of a first release.
TABULAR_FAMILIES = ("logistic_regression", "lightgbm", "isolation_forest")


class UnknownFamilyError(ValueError):
    """A member was asked for that no family of this name makes."""


def load_families(names: Iterable[str]) -> dict[str, FitMember]:
    """Return how each named family is fitted, the baseline always among them."""
    requested = list(dict.fromkeys([BASELINE, *names]))
    unknown = [name for name in requested if name not in FAMILIES]
    if unknown:
        raise UnknownFamilyError(
            f"no model family is called {', '.join(unknown)}; there are {', '.join(FAMILIES)}"
        )
    return {name: import_module(f"flows.models.{name}").fit for name in requested}
