"""What clinicians did with a card, as review decisions: CDS Hooks feedback.

Accepting agrees with the priority. Overriding puts the person into the highest band that is not
queued. A crisis is never closed from an EHR: its feedback is a note, and the item stays open.
"""

from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator
from sqlalchemy.orm import Session

from serving.audit.trail import REVIEW_CHANGE, Event, EventTrail
from serving.database.review_terms import (
    CRISIS_REASONS,
    Decision,
    OverrideReason,
    ReviewStatus,
)
from serving.database.tables import Prediction, ReviewItem
from serving.errors import ConflictError, Principal, RefusedError
from serving.fhir.override_reasons import DISPLAYS, read_override_reason
from serving.reviews import actions
from serving.reviews.queue import ReviewDecision, find_newest_of_prediction
from serving.scoring.estimate import Band
from serving.screening.composition import QUEUED_BANDS

#: From the lowest: the band of an override is the highest below the given one that is not queued.
UNQUEUED_BANDS = tuple(band for band in Band if band not in QUEUED_BANDS)
MOST_FEEDBACKS = 100


class FeedbackPart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Coding(FeedbackPart):
    system: Annotated[str, StringConstraints(max_length=200)] | None = None
    code: Annotated[str, StringConstraints(max_length=100)] | None = None


class CardOverride(FeedbackPart):
    reason: Coding | None = None
    userComment: Annotated[str, StringConstraints(max_length=2000)] | None = None  # noqa: N815

    @model_validator(mode="after")
    def _say_why(self) -> Self:
        if self.reason is None and not self.userComment:
            raise ValueError("needs a reason or a userComment")
        return self


class AcceptedSuggestion(FeedbackPart):
    id: Annotated[str, StringConstraints(max_length=100)]


class CardFeedback(FeedbackPart):
    """One entry; fields and conditions of cds-fb-1 to cds-fb-3."""

    card: Annotated[str, StringConstraints(max_length=100)]
    outcome: Literal["accepted", "overridden"]
    acceptedSuggestions: list[AcceptedSuggestion] = Field(default=[], max_length=10)  # noqa: N815
    overrideReason: CardOverride | None = None  # noqa: N815
    outcomeTimestamp: AwareDatetime  # noqa: N815

    @model_validator(mode="after")
    def _hold_together(self) -> Self:
        if self.outcome == "accepted" and not self.acceptedSuggestions:
            raise ValueError("acceptedSuggestions is needed for an accepted card")
        if self.outcome == "accepted" and self.overrideReason is not None:
            raise ValueError("overrideReason belongs to an overridden card")
        return self


class FeedbackRequest(FeedbackPart):
    feedback: list[CardFeedback] = Field(min_length=1, max_length=MOST_FEEDBACKS)


def apply_feedback(
    session: Session, trail: EventTrail, principal: Principal, feedback: CardFeedback
) -> bool:
    """Record one entry; return False for a card that is unknown or was erased."""
    prediction = _find_prediction(session, feedback.card)
    if prediction is None:
        return False
    reason = find_reason(feedback)
    details = {
        "prediction_id": str(prediction.id),
        "outcome": feedback.outcome,
        "reason_code": reason,
        "given_at": feedback.outcomeTimestamp.isoformat(),
    }
    event = Event(REVIEW_CHANGE, "card_feedback", prediction.anonymized_id, ["prediction"], details)
    trail.record(event)
    item = find_newest_of_prediction(session, prediction.id)
    if item is not None:
        _decide_or_note(session, trail, principal, item, feedback)
    return True


def find_reason(feedback: CardFeedback) -> OverrideReason | None:
    """Return the coded reason of an overridden card, None of an accepted one."""
    if feedback.outcome == "accepted":
        return None
    coding = feedback.overrideReason.reason if feedback.overrideReason else None
    return read_override_reason(*((coding.system, coding.code) if coding else (None, None)))


def _find_prediction(session: Session, card: str) -> Prediction | None:
    try:
        return session.get(Prediction, UUID(card))
    except ValueError:
        return None


def _decide_or_note(
    session: Session,
    trail: EventTrail,
    principal: Principal,
    item: ReviewItem,
    feedback: CardFeedback,
) -> None:
    is_crisis = bool(set(item.reasons) & set(CRISIS_REASONS))
    if is_crisis or item.status == ReviewStatus.DECIDED:
        actions.add_note(session, trail, item.id, principal, describe(feedback))
        return
    try:
        actions.decide(session, trail, item.id, principal, make_decision(item, feedback))
    except (ConflictError, RefusedError):
        # Another clinician has claimed it: the feedback is kept as a note.
        actions.add_note(session, trail, item.id, principal, describe(feedback))


def make_decision(item: ReviewItem, feedback: CardFeedback) -> ReviewDecision:
    """Return the decision of a feedback on an item."""
    comment = describe(feedback)
    if feedback.outcome == "accepted":
        return ReviewDecision(Decision.AGREE, comment)
    band = choose_band(item.priority)
    return ReviewDecision(Decision.OVERRIDE, comment, band, find_reason(feedback))


def choose_band(given: str) -> str:
    """Return the highest band below `given` that is not queued, or else the lowest."""
    order = list(Band)
    below = [band for band in UNQUEUED_BANDS if order.index(band) < order.index(Band(given))]
    return max(below, key=order.index, default=order[0]).value


def describe(feedback: CardFeedback) -> str:
    """Return the text of a feedback: the clinician's comment, or that of the reason."""
    comment = feedback.overrideReason.userComment if feedback.overrideReason else None
    reason = find_reason(feedback)
    words = comment or (DISPLAYS[reason] if reason else "Suggestion accepted")
    return f"In the EHR: {words}"
