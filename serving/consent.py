"""Consent: which data types an individual lets us use, for what, and until when.

Read from the database on every screening; a caller's own statement never replaces it.
"""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from serving.database.tables import Consent

SCREENING = "screening"
TRAINING = "training"


def get_consented_data_types(
    session: Session, anonymized_id: str, purpose: str, at: datetime
) -> frozenset[str]:
    """Return the data types with a consent in force at `at` for `purpose`; empty when none."""
    rows = session.scalars(select(Consent).where(Consent.anonymized_id == anonymized_id))
    return combine_consents(rows, purpose, at)


def combine_consents(consents: Iterable[Consent], purpose: str, at: datetime) -> frozenset[str]:
    """Return what the consents in force allow together."""
    in_force = [row for row in consents if is_in_force(row, at) and purpose in row.purposes]
    return frozenset(data_type for row in in_force for data_type in row.data_types)


def is_in_force(consent: Consent, at: datetime) -> bool:
    """Tell whether a consent had begun, and neither expired nor been withdrawn, at `at`."""
    withdrawn = consent.withdrawn_at is not None and consent.withdrawn_at <= at
    return consent.granted_at <= at < consent.expires_at and not withdrawn
