"""Worlds for flows that are killed."""

from tests.fixtures.fault_world import (
    make_empty_world,
    small_drop,
    world,
)

__all__ = ["make_empty_world", "small_drop", "world"]
