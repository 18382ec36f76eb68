"""Viewing, recording and withdrawing consent, each with its audit row."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from serving.audit.trail import CONSENT_CHANGE, CONSENT_VIEW, Event, EventTrail
from serving.consent.changes import Grant, record_grants, withdraw
from serving.consent.state import ConsentState, describe_consents


def view_consents(session: Session, trail: EventTrail, anonymized_id: str) -> ConsentState:
    """Return what an individual agrees to. Without a consent record, nothing is permitted."""
    trail.record(Event(CONSENT_VIEW, "view_consents", anonymized_id, ["consent"]))
    return describe_consents(session, anonymized_id)


def record_consents(
    session: Session,
    trail: EventTrail,
    anonymized_id: str,
    grants: Sequence[Grant],
    key_id: str,
    recorded_by: str,
) -> None:
    """Replace what is in force by the grants."""
    record_grants(session, anonymized_id, list(grants), key_id, recorded_by)
    details = {"grants": len(grants)}
    data_types = frozenset[str]().union(*(grant.data_types for grant in grants))
    trail.record(Event(CONSENT_CHANGE, "record_consents", anonymized_id, data_types, details))


def withdraw_consents(
    session: Session,
    trail: EventTrail,
    anonymized_id: str,
    data_type: str | None,
    purpose: str | None,
    withdrawn_by: str,
) -> None:
    """Withdraw a data type, a purpose, or with neither everything."""
    touched = withdraw(session, anonymized_id, data_type, purpose, withdrawn_by)
    details = {"data_type": data_type, "purpose": purpose, "consents": touched}
    data_types = [data_type] if data_type else ["consent"]
    trail.record(Event(CONSENT_CHANGE, "withdraw_consents", anonymized_id, data_types, details))
