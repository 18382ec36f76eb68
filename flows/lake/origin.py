"""Whose data a lake holds: simulated people or real ones, never both."""

import polars as pl
from deltalake import write_deltalake

from flows.lake.tables import has_table, locate_table, storage_options

ORIGIN = "origin"


class MixedOriginError(ValueError):
    """Data of real people would land beside simulated ones, or the other way round."""


def mark_simulated(lake_url: str) -> None:
    """Note that the lake holds simulated people; raises MixedOriginError where it holds others."""
    if is_simulated(lake_url):
        return
    if has_table(lake_url, "people"):
        raise MixedOriginError("the lake holds people who are not simulated; use another LAKE_URL")
    mark = pl.DataFrame({"simulated": [True]}).to_arrow()
    write_deltalake(locate_table(lake_url, ORIGIN), mark, storage_options=storage_options())


def require_unsimulated(lake_url: str) -> None:
    """Raise MixedOriginError where the lake holds simulated people."""
    if is_simulated(lake_url):
        raise MixedOriginError("the lake holds simulated people; use another LAKE_URL for a drop")


def is_simulated(lake_url: str) -> bool:
    """Return True if the lake is noted to hold simulated people."""
    return has_table(lake_url, ORIGIN)
