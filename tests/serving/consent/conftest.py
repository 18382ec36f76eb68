"""A database session whose writes are rolled back."""

import uuid

import pytest
from sqlalchemy.orm import Session


@pytest.fixture
def session(engine):
    with Session(engine) as session:
        yield session


@pytest.fixture
def individual():
    return uuid.uuid4().hex
