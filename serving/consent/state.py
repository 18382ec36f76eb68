"""What is allowed about an individual now, and how it came about: for routes and pages alike."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from feature_repo.consent_terms import PURPOSES
from serving.consent.changes import list_current, list_history
from serving.consent.in_force import combine_consents, read_consents
from serving.consent.notices import list_notices
from serving.database.clock import read_database_time

EXAMPLE_ID = "5f0c1d7e2a9b4c3d8e6f7a1b2c3d4e5f"


class ConsentPart(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)

    granted_at: datetime
    expires_at: datetime
    data_types: list[str]
    purposes: list[str]


class ConsentChangePart(ConsentPart):
    changed_at: datetime
    changed_by: str
    change: Literal["granted", "changed", "withdrawn", "erased"]
    withdrawn_at: datetime | None


class ConsentNoticePart(ConsentPart):
    kind: Literal["expiring", "expired"]
    noticed_at: datetime


class ExpiringConsent(ConsentNoticePart):
    anonymized_id: str = Field(examples=[EXAMPLE_ID])


class ExpiringConsents(BaseModel):
    """Consents that end within a week; asking again in time is a person's work."""

    items: list[ExpiringConsent]


class ConsentState(BaseModel):
    """What is allowed now, by purpose; the consents it rests on; and how it came about."""

    model_config = ConfigDict(frozen=True)

    anonymized_id: str = Field(examples=[EXAMPLE_ID])
    allowed: dict[str, list[str]] = Field(description="Data types by purpose.")
    in_force: list[ConsentPart]
    history: list[ConsentChangePart]
    notices: list[ConsentNoticePart] = Field(description="Of consents that end or have ended.")


def describe_consents(session: Session, anonymized_id: str) -> ConsentState:
    now = read_database_time(session)
    consents = read_consents(session, anonymized_id)
    return ConsentState(
        anonymized_id=anonymized_id,
        allowed={purpose: sorted(combine_consents(consents, purpose, now)) for purpose in PURPOSES},
        in_force=[
            ConsentPart.model_validate(consent)
            for consent in list_current(session, anonymized_id, now)
            if consent.granted_at <= now
        ],
        history=[
            ConsentChangePart.model_validate(change)
            for change in list_history(session, anonymized_id)
        ],
        notices=[
            ConsentNoticePart.model_validate(notice)
            for notice in list_notices(session, anonymized_id)
        ],
    )
