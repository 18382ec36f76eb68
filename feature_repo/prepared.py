"""Statements that PostgreSQL parses and plans once for each connection, not at every call.

What a screening reads and writes is asked in the same words each time, and planning the words
costs PostgreSQL more than following them. psycopg2 leaves that to PREPARE and EXECUTE.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import Connection

#: Where a connection's own notes (SQLAlchemy keeps them until it is closed) name its statements.
_NOTES = "mhras_prepared"

Rows = Sequence[tuple[Any, ...]]


@dataclass(frozen=True)
class PreparedStatement:
    """SQL whose arguments are $1, $2, ... of the PostgreSQL types `types`."""

    sql: str
    types: tuple[str, ...]

    @cached_property
    def name(self) -> str:
        """A name that no other statement has."""
        return f"mhras_{hashlib.sha256(self.sql.encode()).hexdigest()[:24]}"

    @cached_property
    def _call(self) -> str:
        return f"EXECUTE {self.name} ({', '.join(['%s'] * len(self.types))})"

    def execute(self, connection: Connection, *arguments: Any) -> Rows:
        """Return the rows that the statement finds for these arguments.

        The connection must stay with one session of PostgreSQL: a pooler between them that
        hands each transaction to another session would lose the statement.
        """
        known: set[str] = connection.info.setdefault(_NOTES, set())
        if self.name not in known:
            connection.exec_driver_sql(
                f"PREPARE {self.name} ({', '.join(self.types)}) AS {self.sql}"
            )
            known.add(self.name)
        return list(map(tuple, connection.exec_driver_sql(self._call, arguments)))
