"""Consent: which data types an individual lets us use, for what, and until when.

Verified on every screening; a caller's own statement never replaces it.
"""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cachetools import TTLCache
from sqlalchemy import ColumnElement, Connection, Engine, and_
from sqlalchemy.orm import Session

from feature_repo.postgres_sessions import PreparedStatement
from serving.database.changes import ChangeListener
from serving.database.clock import read_database_time
from serving.database.tables import Consent

#: Individuals whose consents a worker keeps at hand, and for how long at most.
CACHED_INDIVIDUALS = 50_000
CACHE_SECONDS = 60


class ConsentTerms(Protocol):
    """The terms of a consent, as a row or as a copy of one."""

    @property
    def granted_at(self) -> datetime: ...
    @property
    def expires_at(self) -> datetime: ...
    @property
    def withdrawn_at(self) -> datetime | None: ...
    @property
    def data_types(self) -> Sequence[str]: ...
    @property
    def purposes(self) -> Sequence[str]: ...


@dataclass(frozen=True)
class KnownConsent:
    """A consent as it was read: no session needed to look at it later."""

    granted_at: datetime
    expires_at: datetime
    withdrawn_at: datetime | None
    data_types: tuple[str, ...]
    purposes: tuple[str, ...]


#: Every consent of some individuals: asked for nearly every person who is screened.
_READ_CONSENTS = PreparedStatement(
    "SELECT anonymized_id, granted_at, expires_at, withdrawn_at, data_types, purposes "
    "FROM consent WHERE anonymized_id = ANY($1)",
    ("text[]",),
)


def read_consents(session: Session, anonymized_id: str) -> tuple[KnownConsent, ...]:
    """Return every consent of an individual, whether in force or not."""
    return read_consents_of(session, [anonymized_id])[anonymized_id]


def read_consents_of(
    session: Session, individuals: Sequence[str]
) -> dict[str, tuple[KnownConsent, ...]]:
    """Return every consent of each of the individuals, the session's own changes included."""
    session.flush()
    return find_consents(session.connection(), individuals)


def find_consents(
    connection: Connection, individuals: Sequence[str]
) -> dict[str, tuple[KnownConsent, ...]]:
    """Return every consent of each of the individuals, in one query."""
    by_individual: dict[str, list[KnownConsent]] = {individual: [] for individual in individuals}
    for individual, *terms in _READ_CONSENTS.execute(connection, list(individuals)):
        granted_at, expires_at, withdrawn_at, data_types, purposes = terms
        by_individual[individual].append(
            KnownConsent(granted_at, expires_at, withdrawn_at, tuple(data_types), tuple(purposes))
        )
    return {individual: tuple(consents) for individual, consents in by_individual.items()}


def combine_consents(
    consents: Iterable[ConsentTerms], purpose: str, at: datetime
) -> frozenset[str]:
    """Return what the consents in force allow together."""
    in_force = [row for row in consents if is_in_force(row, at) and purpose in row.purposes]
    return frozenset(data_type for row in in_force for data_type in row.data_types)


def read_allowed(
    session: Session, individuals: Sequence[str], purpose: str
) -> dict[str, frozenset[str]]:
    """Return the data types whose use each individual allows now, empty for none."""
    by_individual, now = read_consents_of(session, individuals), read_database_time(session)
    return {
        individual: combine_consents(terms, purpose, now)
        for individual, terms in by_individual.items()
    }


def is_in_force(consent: ConsentTerms, at: datetime) -> bool:
    """Return True if a consent has begun and has neither expired nor been withdrawn.

    A recorded withdrawal binds regardless of clocks: `withdrawn_at` is not compared. The SQL
    form is `select_in_force`; a property test proves both equal.
    """
    return _covers(consent, at) and consent.withdrawn_at is None


def was_in_force(consent: ConsentTerms, at: datetime) -> bool:
    """Return True if a consent was in force at a past instant, for the records of that time."""
    withdrawn = consent.withdrawn_at is not None and consent.withdrawn_at <= at
    return _covers(consent, at) and not withdrawn


def _covers(consent: ConsentTerms, at: datetime) -> bool:
    return consent.granted_at <= at < consent.expires_at


def select_not_ended(at: datetime | ColumnElement[datetime]) -> ColumnElement[bool]:
    """Return the SQL condition of consents that are in force at `at` or begin later."""
    return and_(Consent.expires_at > at, Consent.withdrawn_at.is_(None))


def select_in_force(at: datetime | ColumnElement[datetime]) -> ColumnElement[bool]:
    """Return the SQL condition of `is_in_force`."""
    return and_(Consent.granted_at <= at, select_not_ended(at))


class ConsentCache:
    """Consents by individual, removed from memory when the database notifies of a change.

    Rows are cached, not decisions: an expiry needs no notification. While the listener is not
    fresh, the database is read every time.
    """

    def __init__(self, listener: ChangeListener) -> None:
        self._listener = listener
        self._lock = threading.Lock()
        self._known: TTLCache[str, tuple[KnownConsent, ...]] = TTLCache(
            CACHED_INDIVIDUALS, CACHE_SECONDS
        )
        self._changes = 0
        listener.subscribe(self._receive)

    def now(self) -> datetime:
        """Return the database's time, by which consents begin and end."""
        return self._listener.clock.now()

    def get_known(self, anonymized_id: str) -> tuple[KnownConsent, ...] | None:
        """Return every consent of an individual as of less than a second ago, without waiting.

        None when the database must be read.
        """
        with self._lock:
            consents = self._known.get(anonymized_id)
        return consents if self._listener.is_fresh else None

    def read(
        self, engine: Engine, individuals: Sequence[str]
    ) -> dict[str, tuple[KnownConsent, ...]]:
        """Return every consent of each of the individuals from the database, and cache them."""
        with self._lock:
            changes = self._changes
        with engine.connect() as connection:
            found = find_consents(connection, individuals)
            if not self._listener.is_fresh:
                self._listener.clock.measure(connection)
        with self._lock:
            # A change that was notified during the query may be missing from its result.
            if changes == self._changes:
                self._known.update(found)
        return found

    def _receive(self, notice: str) -> None:
        kind, _, subject = notice.partition(":")
        with self._lock:
            if kind == "consent" and subject != "*":
                self._known.pop(subject, None)
            elif kind in ("consent", ChangeListener.RESET):
                self._known.clear()
            else:
                return
            self._changes += 1
