"""The running API's fixtures, for what stands before and beside it."""

from tests.fixtures.api import (
    application_url,
    engine,
    grant,
    mlflow_url,
    production_version,
    releases,
)

__all__ = [
    "application_url",
    "engine",
    "grant",
    "mlflow_url",
    "production_version",
    "releases",
]
