"""What the review queue answers and takes."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from serving.database.review_terms import (
    ContactChannel,
    ContactOutcome,
    Decision,
    OverrideReason,
    ReviewStatus,
)
from serving.database.tables import ContactAttempt, Prediction, ReviewEvent, ReviewItem
from serving.http.parameters import EXAMPLE_ID, FreeText, Moment, Page
from serving.http.strict_json import StrictBody
from serving.reviews.contacts import Contact
from serving.reviews.listing import ListedScreening
from serving.reviews.queue import OPEN, ReviewDecision
from serving.scoring.estimate import Band
from serving.screening.answers import TrendPart


class ReviewPart(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)


class ReviewEntry(ReviewPart):
    """One item of the queue."""

    id: UUID
    prediction_id: UUID
    anonymized_id: str = Field(examples=[EXAMPLE_ID])
    created_at: datetime
    age_seconds: float
    due_at: datetime
    overdue: bool
    priority: Band
    reasons: list[str]
    crisis_level: int = Field(description="Answer to PHQ-9 item 9 where the crisis rule decided.")
    risk_score: float
    status: ReviewStatus
    claimed_by: str | None
    claimed_at: datetime | None
    decided_by: str | None
    decided_at: datetime | None
    decision: Decision | None
    new_band: Band | None
    reason_code: OverrideReason | None
    comment: str | None

    @classmethod
    def make(cls, item: ReviewItem) -> Self:
        now = datetime.now(UTC)
        stored = {name: getattr(item, name) for name in cls.model_fields if hasattr(item, name)}
        age = (now - item.created_at).total_seconds()
        overdue = item.status in OPEN and item.due_at < now
        return cls.model_validate(stored | {"age_seconds": round(age, 1), "overdue": overdue})


class ListedReview(ReviewEntry):
    """An item of a list, with what a clinician needs to choose among them."""

    summary: str | None = Field(description="Null where the screening has been erased.")
    why: list[str] = Field(description="Review reasons as sentences.")
    probability: float | None
    data_as_of: dict[str, datetime | None]
    trend: list[TrendPart] = Field(description="Up to ten answers about the person, oldest first.")

    @classmethod
    def make_listed(cls, item: ReviewItem, listed: ListedScreening | None) -> Self:
        shown = asdict(listed) if listed else ERASED
        return cls.model_validate(ReviewEntry.make(item).model_dump() | shown)


#: What a list shows of a screening that has been erased.
ERASED: dict[str, Any] = {
    "summary": None,
    "why": [],
    "probability": None,
    "data_as_of": {},
    "trend": [],
}


class ReviewPage(Page):
    items: list[ListedReview]


class PredictionSummary(ReviewPart):
    """The result of the screening, for its reviewer."""

    prediction_id: UUID
    created_at: datetime
    risk_score: float
    risk_band: Band = Field(description="The top band after a clinician's override.")
    crisis_override: bool
    probability: float | None
    confidence: float
    release_version: str | None
    summary: str
    reasons: list[str]
    missing_data: list[str]

    @classmethod
    def make(cls, prediction: Prediction, overridden: bool) -> Self:
        answer = prediction.answer
        return cls(
            prediction_id=prediction.id,
            created_at=prediction.created_at,
            risk_score=prediction.risk_score,
            risk_band=Band.CRITICAL if overridden else Band(prediction.risk_band),
            crisis_override=overridden,
            probability=prediction.probability,
            confidence=prediction.confidence,
            release_version=prediction.release_version,
            summary=str(answer.get("summary", "")),
            reasons=[str(reason["text"]) for reason in answer.get("reasons", [])],
            missing_data=list(answer.get("missing_data", [])),
        )


class ReviewEventPart(ReviewPart):
    created_at: datetime
    user_id: str
    action: str
    note: str | None


class ContactPart(ReviewPart):
    created_at: datetime
    user_id: str
    channel: ContactChannel
    reached: bool
    outcome: ContactOutcome
    next_contact_at: datetime | None
    note: str | None


class ReviewDetail(ReviewEntry):
    prediction: PredictionSummary | None
    history: list[ReviewEventPart]
    contacts: list[ContactPart] = Field(description="Attempts to reach the person, oldest first.")

    @classmethod
    def compose(
        cls,
        item: ReviewItem,
        prediction: PredictionSummary | None,
        events: Sequence[ReviewEvent],
        contacts: Sequence[ContactAttempt],
    ) -> Self:
        entry = ReviewEntry.make(item).model_dump()
        return cls(
            **entry,
            prediction=prediction,
            history=[ReviewEventPart.model_validate(event) for event in events],
            contacts=[ContactPart.model_validate(contact) for contact in contacts],
        )


class DecisionBody(StrictBody):
    """A decision; what an override or a referral needs is checked."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"decision": "agree"},
                {
                    "decision": "override",
                    "new_band": "moderate",
                    "reason_code": "already_in_care",
                    "comment": "Seen yesterday; next appointment on Monday.",
                },
            ]
        }
    )

    decision: Annotated[Decision, Field(strict=False)]
    comment: FreeText | None = None
    new_band: Annotated[Band, Field(strict=False)] | None = None
    reason_code: Annotated[OverrideReason, Field(strict=False)] | None = None

    @model_validator(mode="after")
    def _validate_complete(self) -> Self:
        given = (self.new_band is not None, self.reason_code is not None)
        if self.decision is Decision.OVERRIDE:
            if not all(given) or self.comment is None:
                raise ValueError("an override needs new_band, reason_code and comment")
        elif any(given):
            raise ValueError("new_band and reason_code belong to an override")
        if self.decision is Decision.REFER and self.comment is None:
            raise ValueError("a referral needs a comment: the service, and why")
        return self

    def to_decision(self) -> ReviewDecision:
        return ReviewDecision(self.decision, self.comment, self.new_band, self.reason_code)


class NoteBody(StrictBody):
    model_config = ConfigDict(json_schema_extra={"examples": [{"note": "Called, no answer."}]})

    note: FreeText


class ContactBody(StrictBody):
    """An attempt to reach the person."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "channel": "phone",
                    "outcome": "no_answer",
                    "next_contact_at": "2099-01-01T09:00:00Z",
                    "note": "Try the mobile number next.",
                }
            ]
        }
    )

    channel: Annotated[ContactChannel, Field(strict=False)]
    outcome: Annotated[ContactOutcome, Field(strict=False)]
    next_contact_at: Annotated[Moment, Field(strict=False)] | None = Field(
        default=None, description="When the next attempt is planned."
    )
    note: FreeText | None = None

    def to_contact(self) -> Contact:
        return Contact(self.channel, self.outcome, self.next_contact_at, self.note)


class OverrideBody(StrictBody):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"comment": "Told me of a plan during the visit."}]}
    )

    comment: FreeText


class OverrideAnswer(ReviewPart):
    """The override, and the review item that now waits for a person."""

    prediction_id: UUID
    review_id: UUID
    created_at: datetime
    user_id: str
    risk_band: Literal[Band.CRITICAL] = Band.CRITICAL
    needs_review: Literal[True] = True
    crisis_guidance: str
