"""Settings at the start of a PostgreSQL session, and statements prepared once per session.

What a screening reads and writes is asked in the same words each time, and planning the words
costs PostgreSQL as much as following them. psycopg2 leaves that to PREPARE and EXECUTE.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import Connection, Engine, event

#: Where a connection's own notes (SQLAlchemy keeps them until it is closed) name its statements.
_NOTES = "mhras_prepared"

Rows = Sequence[tuple[Any, ...]]


def begin_sessions_with(engine: Engine, settings: Mapping[str, str | int]) -> Engine:
    """Let every connection of an engine begin with these settings of PostgreSQL.

    Not as options of the connection: a pooler (PgBouncer) refuses those or drops them without a
    word, and with them a deadline.
    """
    calls = ", ".join(["set_config(%s, %s, false)"] * len(settings))
    arguments = [word for name, value in settings.items() for word in (name, str(value))]

    @event.listens_for(engine, "connect")
    def _begin(connection: Any, _record: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {calls}", arguments)
        connection.commit()

    return engine


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
        prepared: set[str] = connection.info.setdefault(_NOTES, set())
        if self.name not in prepared:
            connection.exec_driver_sql(
                f"PREPARE {self.name} ({', '.join(self.types)}) AS {self.sql}"
            )
            prepared.add(self.name)
        return list(map(tuple, connection.exec_driver_sql(self._call, arguments)))
