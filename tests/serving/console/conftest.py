"""The console on the running application of a development system."""

from tests.fixtures.console import settings, visit

__all__ = ["settings", "visit"]
