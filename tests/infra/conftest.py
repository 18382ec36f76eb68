"""The running API's fixtures, for what stands before and beside it."""

from tests.fixtures.api import (
    application_url,
    engine,
    grant,
    production_version,
)

__all__ = [
    "application_url",
    "engine",
    "grant",
    "production_version",
]
