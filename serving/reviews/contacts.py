"""Attempts to reach the person of a review item: time, clinician, channel, and what is next."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from serving.database.review_terms import ContactChannel, ContactOutcome
from serving.database.tables import ContactAttempt, ReviewEvent
from serving.errors import Principal
from serving.reviews.queue import find_item

CONTACT = "contact"


@dataclass(frozen=True)
class Contact:
    """One attempt as a clinician records it; `reached` follows from the outcome."""

    channel: ContactChannel
    outcome: ContactOutcome
    next_contact_at: datetime | None = None
    note: str | None = None


def add_contact(
    session: Session, review_id: UUID, principal: Principal, contact: Contact
) -> ContactAttempt:
    """Record an attempt beside an item, open or decided; raises NotFoundError."""
    item, now = find_item(session, review_id), datetime.now(UTC)
    attempt = ContactAttempt(
        review_id=review_id,
        anonymized_id=item.anonymized_id,
        created_at=now,
        user_id=principal.user_id,
        channel=contact.channel,
        reached=contact.outcome.reached,
        outcome=contact.outcome,
        next_contact_at=contact.next_contact_at,
        note=contact.note,
    )
    event = ReviewEvent(
        review_id=review_id,
        anonymized_id=item.anonymized_id,
        created_at=now,
        user_id=principal.user_id,
        action=CONTACT,
        note=contact.note,
    )
    session.add_all([attempt, event])
    session.flush()
    return attempt


def list_contacts(session: Session, review_id: UUID) -> Sequence[ContactAttempt]:
    """Return the attempts of an item, oldest first."""
    statement = select(ContactAttempt).where(ContactAttempt.review_id == review_id)
    return session.scalars(statement.order_by(ContactAttempt.id)).all()
