"""Tables of the MHRAS database.

Individuals appear by pseudonym only. `audit_log` has no foreign keys: an audit row
outlives what it is about.
"""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Float,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    SmallInteger,
    String,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from feature_repo.outcomes import ADVERSE_COURSE
from serving.database.lenient_types import LenientInstant, LenientObject, LenientTexts, Unreadable
from serving.database.review_terms import find_due_time


class Base(DeclarativeBase):
    type_annotation_map = {  # noqa: RUF012 (SQLAlchemy's own protocol)
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        list[str]: ARRAY(Text),
        uuid.UUID: UUID(as_uuid=True),
    }


class Consent(Base):
    """What one individual agreed to, for which data types and purposes, and until when.

    Triggers keep every change in `consent_changes`, tell the workers of it, and see that a
    consent from before an erasure stays withdrawn, regardless of its writer.
    """

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
    """One answered screening: its result, and the versions that gave it."""

    __tablename__ = "predictions"
    __table_args__ = (
        Index("idx_predictions_anonymized_id", "anonymized_id"),
        Index("idx_predictions_created_at", "created_at"),
        Index(
            "idx_predictions_batch",
            "batch",
            "anonymized_id",
            unique=True,
            postgresql_where=text("batch IS NOT NULL"),
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    anonymized_id: Mapped[str] = mapped_column(String(32))
    created_at: Mapped[datetime]
    user_id: Mapped[str] = mapped_column(Text)
    risk_score: Mapped[float] = mapped_column(Float)
    probability: Mapped[float | None] = mapped_column(Float)
    #: Key of the outcome that the probability is of (`feature_repo.outcomes`).
    outcome: Mapped[str] = mapped_column(String(32), default=ADVERSE_COURSE.key)
    risk_band: Mapped[str] = mapped_column(String(16))
    confidence: Mapped[float] = mapped_column(Float)
    needs_review: Mapped[bool]
    review_reasons: Mapped[list[str]]
    release_version: Mapped[str | None] = mapped_column(String(32))
    #: Which side of a gradual rollout answered: production or candidate.
    arm: Mapped[str] = mapped_column(String(16))
    #: Name of the batch, which holds one answer about each individual; else None.
    batch: Mapped[str | None] = mapped_column(String(64))
    # Text, not JSONB: nearly all of the write was PostgreSQL taking numbers apart that nobody
    # searches, and the rows took 1.8 times the room.
    #: The whole answer as it was given.
    answer: Mapped[dict[str, Any]] = mapped_column(JSON)
    #: What the models saw: feature values and sequences, None where missing.
    inputs: Mapped[dict[str, Any]] = mapped_column(JSON)


class PredictionLabel(Base):
    """Outcome of a prediction, or the band a reviewer found right: one row of each kind at most.

    An outcome, by its name, is used for training and measurement; a `review` is a clinician's
    decision on the inputs and the band, and no outcome.
    """

    __tablename__ = "prediction_labels"
    __table_args__ = (Index("idx_prediction_labels_anonymized_id", "anonymized_id"),)

    prediction_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("predictions.id", ondelete="CASCADE"), primary_key=True
    )
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    anonymized_id: Mapped[str] = mapped_column(String(32))
    #: observed in later data, adjudicated elsewhere, or a clinician's review.
    source: Mapped[str] = mapped_column(String(16))
    #: Of an outcome: whether it occurred within the horizon.
    occurred: Mapped[bool | None]
    #: Of a review: the band that the clinician left or put the individual in, and why.
    reviewed_band: Mapped[str | None] = mapped_column(String(16))
    reason_code: Mapped[str | None] = mapped_column(String(32))
    #: When the outcome was collected; when the review was decided.
    settled_at: Mapped[datetime]


class ShadowPrediction(Base):
    """Result of the release that did not answer, for the comparison of a rollout."""

    __tablename__ = "shadow_predictions"

    prediction_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("predictions.id", ondelete="CASCADE"), primary_key=True
    )
    created_at: Mapped[datetime]
    release_version: Mapped[str] = mapped_column(String(32))
    arm: Mapped[str] = mapped_column(String(16))
    risk_score: Mapped[float | None] = mapped_column(Float)
    probability: Mapped[float | None] = mapped_column(Float)
    needs_review: Mapped[bool | None]
    #: Type of the error, where the release could not score.
    error: Mapped[str | None] = mapped_column(Text)


class IdempotencyKey(Base):
    """A request that a caller may send again, and the answer it got the first time."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index("idx_idempotency_keys_claimed_at", "claimed_at"),)

    user_id: Mapped[str] = mapped_column(Text, primary_key=True)
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    body_hash: Mapped[str] = mapped_column(String(64))
    claimed_at: Mapped[datetime]
    #: None while the first request is running.
    prediction_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("predictions.id", ondelete="CASCADE")
    )
    answer: Mapped[dict[str, Any] | None]


def _find_due_time(context: Any) -> datetime:
    values = context.get_current_parameters()
    return find_due_time(values["created_at"], values["priority"])


OPEN_ITEMS = text("status IN ('pending', 'claimed')")


class ReviewItem(Base):
    """A prediction waiting for, or decided by, a person."""

    __tablename__ = "review_items"
    __table_args__ = (
        Index("idx_review_items_status", "status", "created_at"),
        Index("idx_review_items_anonymized_id", "anonymized_id"),
        Index("idx_review_items_prediction_id", "prediction_id"),
        Index("idx_review_items_due", "due_at", "id", postgresql_where=OPEN_ITEMS),
        Index("idx_review_items_waiting", "created_at", "id", postgresql_where=OPEN_ITEMS),
        Index("idx_review_items_claimed_by", "claimed_by", postgresql_where=OPEN_ITEMS),
        Index(
            "idx_review_items_counts", "priority", "status", "due_at", postgresql_where=OPEN_ITEMS
        ),
        # The index over the expressions of the queue's order is in migration 0016 alone.
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    prediction_id: Mapped[uuid.UUID]
    anonymized_id: Mapped[str] = mapped_column(String(32))
    created_at: Mapped[datetime]
    priority: Mapped[str] = mapped_column(String(16))
    reasons: Mapped[list[str]]
    #: Answer to PHQ-9 item 9 (0 to 3) by which the crisis rule decided; an unreadable one is 3.
    crisis_level: Mapped[int] = mapped_column(SmallInteger, default=0)
    risk_score: Mapped[float] = mapped_column(Float, default=0.0)
    status: Mapped[str] = mapped_column(String(16))
    due_at: Mapped[datetime] = mapped_column(default=_find_due_time)
    claimed_by: Mapped[str | None] = mapped_column(Text)
    claimed_at: Mapped[datetime | None]
    decided_by: Mapped[str | None] = mapped_column(Text)
    decided_at: Mapped[datetime | None]
    decision: Mapped[str | None] = mapped_column(String(16))
    new_band: Mapped[str | None] = mapped_column(String(16))
    reason_code: Mapped[str | None] = mapped_column(String(32))
    comment: Mapped[str | None] = mapped_column(Text)


class ReviewEvent(Base):
    """What happened to a review item: claims, notes, decisions, in order."""

    __tablename__ = "review_events"
    __table_args__ = (
        Index("idx_review_events_review_id", "review_id", "id"),
        Index("idx_review_events_anonymized_id", "anonymized_id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    review_id: Mapped[uuid.UUID]
    anonymized_id: Mapped[str] = mapped_column(String(32))
    created_at: Mapped[datetime]
    user_id: Mapped[str] = mapped_column(Text)
    action: Mapped[str] = mapped_column(String(16))
    note: Mapped[str | None] = mapped_column(Text)


class ContactAttempt(Base):
    """That a clinician tried to reach the person of a review item, and how it went."""

    __tablename__ = "contact_attempts"
    __table_args__ = (
        Index("idx_contact_attempts_review_id", "review_id", "id"),
        Index("idx_contact_attempts_anonymized_id", "anonymized_id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    review_id: Mapped[uuid.UUID]
    anonymized_id: Mapped[str] = mapped_column(String(32))
    created_at: Mapped[datetime]
    user_id: Mapped[str] = mapped_column(Text)
    channel: Mapped[str] = mapped_column(String(16))
    reached: Mapped[bool]
    outcome: Mapped[str] = mapped_column(String(32))
    next_contact_at: Mapped[datetime | None]
    note: Mapped[str | None] = mapped_column(Text)


class CrisisNotice(Base):
    """The outbox: that a crisis waits, to be sent to the institution's webhook.

    A trigger on `review_items` writes the row, in the transaction of the item.
    """

    __tablename__ = "crisis_notices"
    __table_args__ = (
        Index(
            "idx_crisis_notices_waiting",
            "next_attempt_at",
            postgresql_where=text("state = 'waiting'"),
        ),
    )

    review_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("review_items.id", ondelete="CASCADE"), primary_key=True
    )
    created_at: Mapped[datetime]
    level: Mapped[str] = mapped_column(String(16))
    due_at: Mapped[datetime]
    #: waiting, sent, or dropped: its item was decided before the notice could be delivered.
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int] = mapped_column(server_default="0")
    next_attempt_at: Mapped[datetime]
    settled_at: Mapped[datetime | None]


class CrisisOverride(Base):
    """A clinician's override that puts a prediction into the top band, regardless of its score."""

    __tablename__ = "crisis_overrides"
    __table_args__ = (
        Index("idx_crisis_overrides_prediction_id", "prediction_id"),
        Index("idx_crisis_overrides_anonymized_id", "anonymized_id"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    prediction_id: Mapped[uuid.UUID]
    review_id: Mapped[uuid.UUID]
    anonymized_id: Mapped[str] = mapped_column(String(32))
    created_at: Mapped[datetime]
    user_id: Mapped[str] = mapped_column(Text)
    comment: Mapped[str] = mapped_column(Text)


class ConsentChange(Base):
    """One change of a consent and its author; written by a trigger for every writer."""

    __tablename__ = "consent_changes"
    __table_args__ = (Index("idx_consent_changes_anonymized_id", "anonymized_id", "id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    anonymized_id: Mapped[str] = mapped_column(String(32))
    changed_at: Mapped[datetime]
    changed_by: Mapped[str] = mapped_column(Text)
    change: Mapped[str] = mapped_column(String(16))
    granted_at: Mapped[datetime]
    data_types: Mapped[list[str]]
    purposes: Mapped[list[str]]
    expires_at: Mapped[datetime]
    withdrawn_at: Mapped[datetime | None]


class ConsentNotice(Base):
    """A notice that a consent is about to end (`expiring`) or has ended (`expired`), once each."""

    __tablename__ = "consent_notices"
    __table_args__ = (Index("idx_consent_notices_noticed_at", "noticed_at"),)

    anonymized_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    granted_at: Mapped[datetime] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    data_types: Mapped[list[str]]
    purposes: Mapped[list[str]]
    expires_at: Mapped[datetime]
    noticed_at: Mapped[datetime]


class Erasure(Base):
    """The erasure of an individual: time, requester and signed receipt; append-only."""

    __tablename__ = "erasures"
    __table_args__ = (Index("idx_erasures_anonymized_id", "anonymized_id", "requested_at"),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    anonymized_id: Mapped[str] = mapped_column(String(32))
    requested_at: Mapped[datetime]
    requested_by: Mapped[str] = mapped_column(Text)
    #: Releases that had scored the individual.
    release_versions: Mapped[list[str]]
    receipt: Mapped[dict[str, Any]]


class ErasureStore(Base):
    """How far an erasure is in one store: `queued` until a flow reports `done`."""

    __tablename__ = "erasure_stores"
    __table_args__ = (Index("idx_erasure_stores_state", "state"),)

    erasure_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("erasures.id"), primary_key=True)
    store: Mapped[str] = mapped_column(String(32), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    changed_at: Mapped[datetime]
    details: Mapped[dict[str, Any]]


class DriftReport(Base):
    """The summary of one comparison of what was screened with a release's training data."""

    __tablename__ = "drift_reports"
    __table_args__ = (Index("idx_drift_reports_created_at", "created_at"),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    created_at: Mapped[datetime]
    release_version: Mapped[int]
    window_begin: Mapped[datetime]
    window_end: Mapped[datetime]
    #: Screenings of the window, and the sample of them that was tested.
    rows_screened: Mapped[int]
    rows_tested: Mapped[int]
    #: Share of drifted columns, weighed by importance; unweighed; and of those missing otherwise.
    drift_score: Mapped[float] = mapped_column(Float)
    drifted_share: Mapped[float] = mapped_column(Float)
    missing_drifted_share: Mapped[float] = mapped_column(Float)
    #: None where the release has answered too few.
    scores_drifted: Mapped[bool | None]
    #: The score from which on it acted.
    threshold: Mapped[float] = mapped_column(Float)
    #: What was compared: requests, batches; reports from before were of both, "screenings".
    dataset: Mapped[str] = mapped_column(String(16), server_default="screenings")
    #: Modalities that differ more than windows without drift do.
    alarms: Mapped[list[str]] = mapped_column(JSONB, server_default="[]")
    #: MLflow run with the whole report.
    run_id: Mapped[str] = mapped_column(String(64))
    #: Column -> its test and its missing values.
    columns: Mapped[dict[str, Any]]
    #: Discrimination and calibration on labelled screenings, or that there are too few.
    outcomes: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    #: Each group's share, and how the release did on it.
    groups: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, server_default="[]")


class TokenRevocation(Base):
    """One token refused by its `jti`, or all issued before an instant (of a user, or of all)."""

    __tablename__ = "token_revocations"
    __table_args__ = (
        CheckConstraint(
            "(jti IS NULL) <> (not_before IS NULL) AND (jti IS NULL OR user_id IS NULL)",
            name="revokes_one_token_or_all_before",
        ),
        Index("idx_token_revocations_created_at", "created_at"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    created_at: Mapped[datetime]
    revoked_by: Mapped[str] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text)
    jti: Mapped[str | None] = mapped_column(Text)
    user_id: Mapped[str | None] = mapped_column(Text)
    not_before: Mapped[datetime | None]


class BrowserSession(Base):
    """A person signed in to the console; the cookie's secret is kept as its SHA-256."""

    __tablename__ = "browser_sessions"
    __table_args__ = (
        Index("idx_browser_sessions_user_id", "user_id"),
        Index("idx_browser_sessions_expires_at", "expires_at"),
    )

    token_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    user_id: Mapped[str] = mapped_column(Text)
    role: Mapped[str] = mapped_column(String(32))
    created_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class SignInTicket(Base):
    """Something that lets a browser sign in once: a local link, or a visit to the provider.

    Using a ticket removes its row, so that of two uses one succeeds.
    """

    __tablename__ = "sign_in_tickets"
    __table_args__ = (Index("idx_sign_in_tickets_expires_at", "expires_at"),)

    token_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    expires_at: Mapped[datetime]
    #: Of a local link: who signs in by it.
    user_id: Mapped[str | None] = mapped_column(Text)
    role: Mapped[str | None] = mapped_column(String(32))
    #: Of a visit to the provider: what its answer must match, and where to go then.
    nonce: Mapped[str | None] = mapped_column(Text)
    code_verifier: Mapped[str | None] = mapped_column(Text)
    destination: Mapped[str | None] = mapped_column(Text)


class AuditRow(Base):
    """Who did what to whose data, and with what result; refusals included."""

    __tablename__ = "audit_log"
    __table_args__ = (
        Index("idx_audit_log_event_type", "event_type"),
        Index("idx_audit_log_created_at", "created_at"),
        Index("idx_audit_log_anonymized_id", "anonymized_id", "id"),
        Index(
            "idx_audit_log_listed_individuals",
            "details",
            postgresql_using="gin",
            postgresql_ops={"details": "jsonb_path_ops"},
            postgresql_where=text("event_type = 'review_list'"),
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(LenientInstant)
    event_type: Mapped[str] = mapped_column(Text)
    user_id: Mapped[str] = mapped_column(Text)
    user_role: Mapped[str] = mapped_column(Text)
    anonymized_id: Mapped[str | None] = mapped_column(String(32))
    data_types: Mapped[list[str]] = mapped_column(LenientTexts)
    action: Mapped[str] = mapped_column(Text)
    result: Mapped[str] = mapped_column(Text)
    request_id: Mapped[str | None] = mapped_column(Text)
    #: Address of the client; None of what no request caused, and of rows before the column.
    network: Mapped[str | None] = mapped_column(Text)
    details: Mapped[dict[str, Any]] = mapped_column(LenientObject)

    @property
    def unreadable(self) -> list[str]:
        """The columns whose values Python cannot hold."""
        names = ("created_at", "data_types", "details")
        return [name for name in names if isinstance(getattr(self, name), Unreadable)]


class AuditSeal(Base):
    """One link of the hash chain over `audit_log`, in the order of sealing."""

    __tablename__ = "audit_chain"

    position: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    audit_id: Mapped[int] = mapped_column(BigInteger, unique=True)
    previous_hash: Mapped[bytes] = mapped_column(LargeBinary)
    row_hash: Mapped[bytes] = mapped_column(LargeBinary)
    sealed_at: Mapped[datetime]


class AuditCheckpoint(Base):
    """A signed head of the chain; the same document lies in the checkpoint store."""

    __tablename__ = "audit_checkpoints"

    position: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    signed_at: Mapped[datetime] = mapped_column(LenientInstant)
    document: Mapped[dict[str, Any]] = mapped_column(LenientObject)


class AuditVerification(Base):
    """A verification of the whole trail: when, by whom, and its result once it has finished."""

    __tablename__ = "audit_verifications"
    __table_args__ = (Index("idx_audit_verifications_started_at", text("started_at DESC")),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    started_at: Mapped[datetime]
    started_by: Mapped[str] = mapped_column(Text)
    finished_at: Mapped[datetime | None]
    result: Mapped[dict[str, Any] | None]


class ClientTokenUse(Base):
    """A token of an EHR client that was accepted; it is refused when it comes again."""

    __tablename__ = "client_token_uses"
    __table_args__ = (Index("idx_client_token_uses_expires_at", "expires_at"),)

    client_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    token_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    expires_at: Mapped[datetime]
