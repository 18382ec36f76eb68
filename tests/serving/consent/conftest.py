"""An individual of no other test."""

import uuid

import pytest


@pytest.fixture
def individual():
    return uuid.uuid4().hex
