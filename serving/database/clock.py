"""The database's clock: the one clock by which consents begin and end.

Pods' clocks differ, and one that is behind would go on using data after a consent ended. Python
code reads the time here; SQL uses `DATABASE_TIME`.
"""

from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, Connection, func, select
from sqlalchemy.orm import Session

#: The time of the database in SQL, at the moment of the statement.
DATABASE_TIME: ColumnElement[datetime] = func.clock_timestamp()


def read_database_time(session: Session) -> datetime:
    """Return the database's time now, in UTC."""
    return session.scalars(select(DATABASE_TIME)).one().astimezone(UTC)


class DatabaseClock:
    """The database's time without a query: this machine's clock with a measured difference.

    The difference is measured at every heartbeat of the change listener, four times a second.
    """

    def __init__(self) -> None:
        self._difference = timedelta()

    def measure(self, connection: Connection | Session) -> None:
        """Measure the difference; the database read its clock halfway through the query."""
        asked_at = datetime.now(UTC)
        database_time = connection.scalars(select(DATABASE_TIME)).one()
        self._difference = database_time - (asked_at + (datetime.now(UTC) - asked_at) / 2)

    def now(self) -> datetime:
        return datetime.now(UTC) + self._difference
