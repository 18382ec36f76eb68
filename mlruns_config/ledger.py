"""The promotion ledger: who moved which version to which stage, why, on what evidence.

MLflow keeps no history of stage transitions, so this table in the MHRAS database is the
only record of what was Production when. It is append-only: the database refuses UPDATE,
DELETE and TRUNCATE on it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    DateTime,
    Identity,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import JSONB

Result = Literal["promoted", "refused", "failed", "overridden", "unchanged"]

ledger_metadata = MetaData()

promotion_ledger = Table(
    "promotion_ledger",
    ledger_metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("model", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("from_stage", Text, nullable=False),
    Column("to_stage", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("gates", JSONB, nullable=False),
    Column("result", Text, nullable=False),
    Index("idx_promotion_ledger_model", "model", "created_at"),
)


@dataclass(frozen=True)
class LedgerEntry:
    """One transition, carried out or refused; `gates` maps gate names to their values.

    An override moves nothing: its `gates` are the metric and the last day (`until`).
    """

    model: str
    version: int
    from_stage: str
    to_stage: str
    actor: str
    reason: str
    result: Result
    gates: Mapping[str, Any] = field(default_factory=dict)


def append_to_ledger(connection: Connection, entry: LedgerEntry) -> int:
    """Write `entry` in the caller's transaction and return its ledger id."""
    statement = promotion_ledger.insert().values(
        created_at=datetime.now(UTC),
        model=entry.model,
        version=entry.version,
        from_stage=entry.from_stage,
        to_stage=entry.to_stage,
        actor=entry.actor,
        reason=entry.reason,
        gates={name: _keep_number(value) for name, value in entry.gates.items()},
        result=entry.result,
    )
    return connection.execute(statement.returning(promotion_ledger.c.id)).scalar_one()


def _keep_number(value: Any) -> Any:
    # JSON has no NaN; PostgreSQL would refuse the row and with it the record of the refusal.
    return None if isinstance(value, float) and not math.isfinite(value) else value
