"""Fixtures of the running API."""

from tests.fixtures.api import (
    application_url,
    breaking_trigger,
    client,
    engine,
    grant,
    production_version,
    reader,
    screen,
    session,
    settings,
)

__all__ = [
    "application_url",
    "breaking_trigger",
    "client",
    "engine",
    "grant",
    "production_version",
    "reader",
    "screen",
    "session",
    "settings",
]
