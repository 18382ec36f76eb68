"""Recording what an individual agrees to, and what they withdraw.

A grant is data types times purposes until an instant. Recording replaces what was in force;
withdrawing takes away all of it, or one data type, or one purpose. Rows are never rewritten:
what was in force is withdrawn, and what remains of it is granted again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count

from sqlalchemy import Select, func, select, update
from sqlalchemy.orm import Session

from feature_repo.consent_terms import DATA_TYPES, PURPOSES
from serving.consent.in_force import select_in_force, select_not_ended
from serving.database.clock import read_database_time
from serving.database.tables import Consent, ConsentChange

EXPIRY_WARNING = timedelta(days=7)


@dataclass(frozen=True)
class Grant:
    """What one consent allows: each data type for each purpose, until `expires_at`."""

    data_types: frozenset[str]
    purposes: frozenset[str]
    expires_at: datetime

    @property
    def is_empty(self) -> bool:
        return not (self.data_types and self.purposes)


def subtract(grant: Grant, data_types: frozenset[str], purposes: frozenset[str]) -> list[Grant]:
    """Return what is left of a grant without `data_types` for `purposes`: itself, or its parts."""
    if not (grant.data_types & data_types and grant.purposes & purposes):
        return [grant]
    other_types = Grant(grant.data_types - data_types, grant.purposes, grant.expires_at)
    other_purposes = Grant(
        grant.data_types & data_types, grant.purposes - purposes, grant.expires_at
    )
    return [part for part in (other_types, other_purposes) if not part.is_empty]


def record_grants(
    session: Session, anonymized_id: str, grants: Sequence[Grant], key_id: str, user_id: str
) -> None:
    """Replace the consents in force by `grants`."""
    _name_the_writer(session, user_id)
    now = read_database_time(session)
    _end_current(session, anonymized_id, now)
    _add(session, anonymized_id, grants, key_id, now)


def withdraw(
    session: Session, anonymized_id: str, data_type: str | None, purpose: str | None, user_id: str
) -> int:
    """Take away a data type, a purpose, one for the other, or all; return how many it touched."""
    _name_the_writer(session, user_id)
    data_types = frozenset(DATA_TYPES if data_type is None else [data_type])
    purposes = frozenset(PURPOSES if purpose is None else [purpose])
    touched = 0
    for consent in list_current(session, anonymized_id, read_database_time(session)):
        grant = _read_grant(consent)
        left = subtract(grant, data_types, purposes)
        if left == [grant]:
            continue
        touched += 1
        consent.withdrawn_at = now = read_database_time(session)
        session.flush()
        # What is left of a consent that begins later begins no sooner.
        _add(session, anonymized_id, left, consent.key_id, max(now, consent.granted_at))
    return touched


def list_current(session: Session, anonymized_id: str, at: datetime) -> Sequence[Consent]:
    """Return the consents in force at `at`, and those that begin later."""
    return session.scalars(_select_current(anonymized_id, at)).all()


def _select_current(anonymized_id: str, at: datetime) -> Select[Consent]:
    return (
        select(Consent)
        .where(
            Consent.anonymized_id == anonymized_id,
            select_not_ended(at),
        )
        .order_by(Consent.granted_at)
    )


def _read_grant(consent: Consent) -> Grant:
    return Grant(frozenset(consent.data_types), frozenset(consent.purposes), consent.expires_at)


def list_history(session: Session, anonymized_id: str) -> Sequence[ConsentChange]:
    """Return every change of an individual's consents, oldest first."""
    statement = select(ConsentChange).where(ConsentChange.anonymized_id == anonymized_id)
    return session.scalars(statement.order_by(ConsentChange.id)).all()


def count_expiring(session: Session) -> int:
    """Return how many consents in force end within a week."""
    now = read_database_time(session)
    statement = select(func.count()).where(
        select_in_force(now), Consent.expires_at <= now + EXPIRY_WARNING
    )
    return session.scalar(statement.select_from(Consent)) or 0


def _name_the_writer(session: Session, user_id: str) -> None:
    # The trigger that keeps the history reads it, for this transaction only.
    session.execute(select(func.set_config("mhras.user_id", user_id, True)))


def _end_current(session: Session, anonymized_id: str, now: datetime) -> None:
    session.execute(
        update(Consent)
        .where(
            Consent.anonymized_id == anonymized_id,
            select_not_ended(now),
        )
        .values(withdrawn_at=now)
    )


def _add(
    session: Session,
    anonymized_id: str,
    grants: Sequence[Grant],
    key_id: str,
    begins_at: datetime,
) -> None:
    beginnings = _list_free_instants(session, anonymized_id, begins_at)
    for grant, granted_at in zip(grants, beginnings, strict=False):
        session.add(
            Consent(
                anonymized_id=anonymized_id,
                granted_at=granted_at,
                data_types=sorted(grant.data_types),
                purposes=sorted(grant.purposes),
                expires_at=grant.expires_at,
                key_id=key_id,
            )
        )
    session.flush()


def _list_free_instants(
    session: Session, anonymized_id: str, earliest: datetime
) -> Iterator[datetime]:
    """Yield instants from `earliest` on, a microsecond apart: one consent each is the key."""
    statement = select(Consent.granted_at).where(
        Consent.anonymized_id == anonymized_id, Consent.granted_at >= earliest
    )
    taken = set(session.scalars(statement))
    instants = (earliest + timedelta(microseconds=number) for number in count())
    return (instant for instant in instants if instant not in taken)
