"""Whose data this state holds, simulated people's or real ones', and what that forbids.

The flows note it in the database beside the ledger, because the lake is out of reach where a
release is promoted. A note stays: people who were erased were real all the same.
"""

from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import Column, DateTime, Engine, Table, Text, select
from sqlalchemy.dialects.postgresql import insert

from mlruns_config.ledger import ledger_metadata
from mlruns_config.manifest import ReleaseManifest

#: `unknown` is a state from before the notes, of which consents were held.
Origin = Literal["simulated", "people", "unknown"]

data_origins = Table(
    "data_origins",
    ledger_metadata,
    Column("origin", Text, primary_key=True),
    Column("noted_at", DateTime(timezone=True), nullable=False),
)


def note_origin(engine: Engine, *, is_simulated: bool) -> None:
    """Note whose data this state takes in, once."""
    origin: Origin = "simulated" if is_simulated else "people"
    statement = insert(data_origins).values(origin=origin, noted_at=datetime.now(UTC))
    with engine.begin() as connection:
        connection.execute(statement.on_conflict_do_nothing())


def holds_real_people(engine: Engine) -> bool:
    """Return True if real people's data are, or may be, held; what is unknown may be."""
    with engine.connect() as connection:
        origins = set(connection.scalars(select(data_origins.c.origin)))
    return "people" in origins or origins == {"unknown"}


def find_mixed_origin(engine: Engine, manifest: ReleaseManifest) -> list[str]:
    """Return why a release may not answer about the people of this state; empty if it may.

    No override covers this: a gate is a number, this is another population.
    """
    if manifest.is_simulated and holds_real_people(engine):
        return ["it was trained on simulated people, and this state holds real ones"]
    return []
