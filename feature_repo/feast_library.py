"""Feast's classes, imported without two things that nothing here uses (ADR 0087).

Feast rewrites its classes on import so that they check the types of their arguments, and imports
torch. Together they take half of a flow's imports: four seconds and 180 MB.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import typeguard

Checked = TypeVar("Checked")


@contextmanager
def import_less() -> Iterator[None]:
    """Leave out type checks and torch in what is imported inside; both are as before afterwards.

    A module that is None in `sys.modules` is one that is not installed. Feast allows for that.
    """
    checks, typeguard.typechecked = typeguard.typechecked, _leave_unchecked  # type: ignore[assignment]
    lacks_torch = "torch" not in sys.modules
    if lacks_torch:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        typeguard.typechecked = checks
        if lacks_torch:
            del sys.modules["torch"]


def _leave_unchecked(target: Checked) -> Checked:
    return target


with import_less():
    from feast import (
        Entity,
        FeatureService,
        FeatureStore,
        FeatureView,
        Field,
        FileSource,
        RepoConfig,
        RequestSource,
        ValueType,
    )
    from feast.data_format import DeltaFormat
    from feast.on_demand_feature_view import on_demand_feature_view
    from feast.types import Array, Float32, Float64, String

__all__ = [
    "Array",
    "DeltaFormat",
    "Entity",
    "FeatureService",
    "FeatureStore",
    "FeatureView",
    "Field",
    "FileSource",
    "Float32",
    "Float64",
    "RepoConfig",
    "RequestSource",
    "String",
    "ValueType",
    "on_demand_feature_view",
]
