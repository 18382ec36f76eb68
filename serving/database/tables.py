"""Tables of the MHRAS database.

Individuals appear by pseudonym only. `audit_log` has no foreign keys: an audit row
outlives what it is about.
"""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, BigInteger, DateTime, Float, Identity, Index, String, Text, func
from sqlalchemy.dialects.postgresql import JSONB, UUID
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    type_annotation_map = {  # noqa: RUF012 (SQLAlchemy's own protocol)
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        list[str]: ARRAY(Text),
        uuid.UUID: UUID(as_uuid=True),
    }


class Consent(Base):
    """What one individual agreed to, for which data types and purposes, and until when."""

    __tablename__ = "consent"
    __table_args__ = (Index("idx_consent_expires_at", "expires_at"),)

    anonymized_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    granted_at: Mapped[datetime] = mapped_column(primary_key=True)
    data_types: Mapped[list[str]]
    purposes: Mapped[list[str]]
    expires_at: Mapped[datetime]
    withdrawn_at: Mapped[datetime | None]
    key_id: Mapped[str] = mapped_column(String(8))
    recorded_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Prediction(Base):
    """One answered screening: what was said, and by which versions."""

    __tablename__ = "predictions"
    __table_args__ = (
        Index("idx_predictions_anonymized_id", "anonymized_id"),
        Index("idx_predictions_created_at", "created_at"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    anonymized_id: Mapped[str] = mapped_column(String(32))
    created_at: Mapped[datetime]
    user_id: Mapped[str] = mapped_column(Text)
    risk_score: Mapped[float] = mapped_column(Float)
    probability: Mapped[float | None] = mapped_column(Float)
    risk_band: Mapped[str] = mapped_column(String(16))
    confidence: Mapped[float] = mapped_column(Float)
    needs_review: Mapped[bool]
    review_reasons: Mapped[list[str]]
    release_version: Mapped[str | None] = mapped_column(String(32))
    #: The whole answer as it was given, feature values included.
    answer: Mapped[dict[str, Any]]


class ReviewItem(Base):
    """A prediction waiting for, or decided by, a person."""

    __tablename__ = "review_items"
    __table_args__ = (Index("idx_review_items_status", "status", "created_at"),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    prediction_id: Mapped[uuid.UUID]
    anonymized_id: Mapped[str] = mapped_column(String(32))
    created_at: Mapped[datetime]
    priority: Mapped[str] = mapped_column(String(16))
    reasons: Mapped[list[str]]
    status: Mapped[str] = mapped_column(String(16))


class AuditRow(Base):
    """Who did what to whose data, and with what result; refusals included."""

    __tablename__ = "audit_log"
    __table_args__ = (
        Index("idx_audit_log_event_type", "event_type"),
        Index("idx_audit_log_created_at", "created_at"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    created_at: Mapped[datetime]
    event_type: Mapped[str] = mapped_column(Text)
    user_id: Mapped[str] = mapped_column(Text)
    user_role: Mapped[str] = mapped_column(Text)
    anonymized_id: Mapped[str | None] = mapped_column(String(32))
    data_types: Mapped[list[str]]
    action: Mapped[str] = mapped_column(Text)
    result: Mapped[str] = mapped_column(Text)
    request_id: Mapped[str | None] = mapped_column(Text)
    details: Mapped[dict[str, Any]]
