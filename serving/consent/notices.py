"""Consents that end: which to renew in time, and whose data are no longer used.

Use stops at the instant a consent expires, because every screening, training and batch reads the
consents in force. A notice is recorded twice: a week ahead, and when the consent has ended.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Exists, Select, and_, exists, select
from sqlalchemy.orm import Session, aliased

from feature_repo.consent_terms import SCREENING
from serving.audit.trail import CONSENT_NOTICE, Event, record
from serving.consent.changes import EXPIRY_WARNING
from serving.consent.in_force import combine_consents, read_consents_of
from serving.database.clock import DATABASE_TIME, read_database_time
from serving.database.tables import Consent, ConsentNotice
from serving.errors import Actor

EXPIRING, EXPIRED = "expiring", "expired"
ACTIONS = {EXPIRING: "warn_of_expiry", EXPIRED: "end_consent"}


def find_unnoticed(session: Session, kind: str, now: datetime, limit: int) -> Sequence[Consent]:
    """Return up to `limit` consents that end, or have ended, of which no notice was given yet.

    One that a longer consent covers as a whole ends nothing, and one that was withdrawn has ended
    already by somebody's word.
    """
    noticed = exists().where(
        ConsentNotice.anonymized_id == Consent.anonymized_id,
        ConsentNotice.granted_at == Consent.granted_at,
        ConsentNotice.kind == kind,
    )
    until = now + EXPIRY_WARNING if kind == EXPIRING else now
    ends = and_(Consent.expires_at <= until, Consent.withdrawn_at.is_(None))
    if kind == EXPIRING:
        ends = and_(ends, Consent.expires_at > now)
    statement: Select[Consent] = select(Consent).where(ends, ~noticed, ~_is_covered(until))
    return session.scalars(statement.order_by(Consent.expires_at).limit(limit)).all()


def _is_covered(until: datetime) -> Exists:
    other = aliased(Consent)
    return exists().where(
        other.anonymized_id == Consent.anonymized_id,
        other.withdrawn_at.is_(None),
        other.granted_at <= until,
        other.expires_at > until,
        other.data_types.op("@>")(Consent.data_types),
        other.purposes.op("@>")(Consent.purposes),
    )


def give_notices(
    session: Session, kind: str, consents: Sequence[Consent], actor: Actor, now: datetime
) -> None:
    """Record a notice of each consent, and that it was given, in one transaction."""
    for consent in consents:
        session.add(
            ConsentNotice(
                anonymized_id=consent.anonymized_id,
                granted_at=consent.granted_at,
                kind=kind,
                data_types=consent.data_types,
                purposes=consent.purposes,
                expires_at=consent.expires_at,
                noticed_at=now,
            )
        )
        details = {"purposes": sorted(consent.purposes), "expires_at": str(consent.expires_at)}
        event = Event(
            CONSENT_NOTICE, ACTIONS[kind], consent.anonymized_id, consent.data_types, details
        )
        record(session, actor, None, event)


def find_lost_types(session: Session, consents: Sequence[Consent]) -> dict[str, frozenset[str]]:
    """Return by individual the data types that no consent to screening covers any more."""
    people = sorted({consent.anonymized_id for consent in consents})
    by_individual = read_consents_of(session, people)
    now = read_database_time(session)
    lost = {
        person: frozenset(kind for terms in by_individual[person] for kind in terms.data_types)
        - combine_consents(by_individual[person], SCREENING, now)
        for person in people
    }
    return {person: kinds for person, kinds in lost.items() if kinds}


def list_notices(session: Session, anonymized_id: str) -> Sequence[ConsentNotice]:
    """Return the notices about an individual, oldest first."""
    statement = select(ConsentNotice).where(ConsentNotice.anonymized_id == anonymized_id)
    return session.scalars(statement.order_by(ConsentNotice.noticed_at)).all()


def list_expiring(session: Session, limit: int) -> Sequence[ConsentNotice]:
    """Return up to `limit` warnings whose consent still stands unchanged, soonest first."""
    statement = (
        select(ConsentNotice)
        .join(
            Consent,
            and_(
                Consent.anonymized_id == ConsentNotice.anonymized_id,
                Consent.granted_at == ConsentNotice.granted_at,
            ),
        )
        .where(
            ConsentNotice.kind == EXPIRING,
            Consent.withdrawn_at.is_(None),
            Consent.expires_at == ConsentNotice.expires_at,
            ConsentNotice.expires_at > DATABASE_TIME,
        )
        .order_by(ConsentNotice.expires_at, ConsentNotice.anonymized_id)
        .limit(limit)
    )
    return session.scalars(statement).all()
