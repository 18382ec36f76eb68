"""Fixtures of an audit trail."""

from tests.fixtures.audit_trail import (
    databases,
    trail,
)

__all__ = ["databases", "trail"]
