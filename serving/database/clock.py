"""The database's clock: the one clock by which consents begin and end.

Pods' clocks differ, and one that is behind would go on using data after a consent ended. Python
code reads the time here; SQL uses `DATABASE_TIME`.
"""

import time
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, Connection, func, select
from sqlalchemy.orm import Session

#: The time of the database in SQL, at the moment of the statement.
DATABASE_TIME: ColumnElement[datetime] = func.clock_timestamp()


def read_database_time(session: Session) -> datetime:
    """Return the database's time now, in UTC."""
    return session.scalars(select(DATABASE_TIME)).one().astimezone(UTC)


class DatabaseClock:
    """The database's time without a query: a measured time, and the monotonic seconds since.

    It is measured at every heartbeat of the change listener, four times a second. A step of this
    machine's clock in between changes nothing; before the first measurement that clock counts.
    """

    def __init__(self) -> None:
        self._monotonic_zero = datetime.now(UTC) - read_monotonic()

    def measure(self, connection: Connection | Session) -> None:
        """Measure the time; the database read its clock halfway through the query."""
        asked_at = read_monotonic()
        database_time = connection.scalars(select(DATABASE_TIME)).one().astimezone(UTC)
        self._monotonic_zero = database_time - (asked_at + read_monotonic()) / 2

    def now(self) -> datetime:
        """Return the database's time now, in UTC."""
        return self._monotonic_zero + read_monotonic()


def read_monotonic() -> timedelta:
    """Return the time of the monotonic clock, whose zero is any past instant."""
    return timedelta(seconds=time.monotonic())
