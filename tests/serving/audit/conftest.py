"""A trail of its own for each test: rows, chain and checkpoints, and ways to break into it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text

from serving.audit import Event
from serving.audit.checkpoints import CheckpointStore
from serving.audit.sealer import seal_rows, sign_checkpoint
from serving.audit.signing import KeyRing, Signer
from serving.audit.trail import make_row
from serving.audit.verification import Verification, verify_trail
from serving.database.sessions import open_session
from tests.serving.conftest import SIGNING_KEY

SIGNER = Signer(SIGNING_KEY)


@dataclass
class Trail:
    """`application` is how the API reaches the database, `owner` an attacker who rules it."""

    application: Engine
    owner: Engine
    folder: Path

    @property
    def store(self) -> CheckpointStore:
        return CheckpointStore(str(self.folder))

    def write(self, count: int) -> None:
        with open_session(self.application) as session:
            for number in range(count):
                event = Event("test_event", f"action_{number}", "a" * 32, ["survey"], {"n": number})
                session.add(make_row("u", "clinician", "success", None, event))

    def seal(self) -> int:
        return seal_rows(self.application)

    def sign(self) -> int | None:
        return sign_checkpoint(self.application, self.store, SIGNER)

    def verify(self) -> Verification:
        return verify_trail(self.application, self.store, KeyRing([SIGNER.public_key]))

    def tamper(self, *statements: str, **values: Any) -> None:
        """Run statements as an owner who has switched the triggers off."""
        with self.owner.begin() as connection:
            connection.execute(text("SET session_replication_role = replica"))
            for statement in statements:
                connection.execute(text(statement), values)

    def reset(self, folder: Path) -> None:
        self.tamper("TRUNCATE audit_log, audit_chain, audit_checkpoints RESTART IDENTITY")
        self.folder = folder


@pytest.fixture(scope="module")
def databases(database_url: str, application_url: str) -> Iterator[tuple[Engine, Engine]]:
    application, owner = create_engine(application_url), create_engine(database_url)
    yield application, owner
    application.dispose()
    owner.dispose()


@pytest.fixture
def trail(databases: tuple[Engine, Engine], tmp_path: Path) -> Trail:
    """An empty trail."""
    trail = Trail(*databases, tmp_path)
    trail.reset(tmp_path / "checkpoints")
    return trail
