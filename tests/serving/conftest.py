"""Fixtures of the running API."""

from tests.fixtures.api import (
    application_url,
    breaking_trigger,
    client,
    engine,
    grant,
    mlflow_url,
    production_version,
    reader,
    releases,
    screen,
    settings,
)

__all__ = [
    "application_url",
    "breaking_trigger",
    "client",
    "engine",
    "grant",
    "mlflow_url",
    "production_version",
    "reader",
    "releases",
    "screen",
    "settings",
]
