"""What a screening answers. Priority wording throughout: never a diagnosis."""

from datetime import datetime
from enum import StrEnum
from typing import Literal
from uuid import UUID

from pydantic import Field

from serving.scoring.estimate import Band
from serving.scoring.parts import AnswerPart, CounterfactualPart, ReasonPart, RulePart

INTENDED_USE_PATH = "/intended-use"
INTENDED_USE = (
    "Puts individuals in order for review by a clinician. Not a diagnosis, not a prediction of "
    "suicide, never a ground to deny, delay or end care. Low priority is not low risk."
)


class ReviewReason(StrEnum):
    """Why a person must look at a screening."""

    CRISIS_ITEM = "crisis_item"
    UNREADABLE_CRISIS_ITEM = "unreadable_crisis_item"
    CRISIS_ITEM_UNKNOWN = "crisis_item_unknown"
    SCORE = "score"
    ABSTENTION = "abstention"
    NO_RELEASE = "no_release"


REVIEW_TEXTS = {
    ReviewReason.CRISIS_ITEM: "PHQ-9 item 9 (thoughts of death or self-harm) is above 0.",
    ReviewReason.UNREADABLE_CRISIS_ITEM: "PHQ-9 item 9 is unreadable, so it counts as present.",
    ReviewReason.CRISIS_ITEM_UNKNOWN: "Only a PHQ-9 total was sent; ask about item 9.",
    ReviewReason.SCORE: "The score reaches the review threshold.",
    ReviewReason.ABSTENTION: "The estimate is too uncertain to stand alone.",
    ReviewReason.NO_RELEASE: "No model was available; the answer rests on item 9 alone.",
}


class ReviewReasonPart(AnswerPart):
    code: ReviewReason
    text: str


class IntervalPart(AnswerPart):
    low: float
    high: float
    coverage: float = Field(description="Share of cases the interval is built to hold.")


class TrendPart(AnswerPart):
    created_at: datetime
    risk_score: float
    risk_band: Band
    probability: float | None


class MemberPart(AnswerPart):
    name: str
    registered_model: str
    version: int
    probability: float = Field(description="What this member says by itself, not calibrated.")
    weight: float = Field(description="Its weight in the release; 0: it only watches.")


class ReleasePart(AnswerPart):
    name: str
    version: int
    feature_service: str
    members: list[MemberPart]


class IntendedUsePart(AnswerPart):
    text: str = INTENDED_USE
    href: str = INTENDED_USE_PATH


class ScreeningAnswer(AnswerPart):
    prediction_id: UUID
    anonymized_id: str
    created_at: datetime
    summary: str = Field(max_length=139)
    risk_score: float = Field(
        ge=0, le=100, description="Review priority; 100 when the crisis rule decides."
    )
    risk_band: Band
    decided_by: Literal["release", "crisis_rule"]
    model_score: float | None = Field(description="The release's own score; null without one.")
    probability: float | None = Field(
        description="Calibrated probability of deterioration within 90 days."
    )
    interval: IntervalPart | None
    confidence: float = Field(
        ge=0, le=1, description="0.5 is where the release begins to abstain; 0 without a release."
    )
    reasons: list[ReasonPart] = Field(
        description="Strongest first; up to five that raise the priority, five that lower it."
    )
    counterfactuals: list[CounterfactualPart]
    rule: RulePart | None = Field(description="Null unless ENABLE_RULE_EXTRACTION is set.")
    trend: list[TrendPart] = Field(
        default=[], description="Up to ten earlier answers about the individual, oldest first."
    )
    needs_review: bool
    review_reasons: list[ReviewReasonPart]
    crisis_guidance: str | None
    missing_data: list[str] = Field(description="Data types the answer had to do without.")
    data_as_of: dict[str, datetime | None] = Field(description="Age of each group of features.")
    degraded: list[str] = Field(description="Dependencies that were down for this answer.")
    known_individual: bool | None = Field(
        description="False when no data are stored; null when the store could not be asked."
    )
    release: ReleasePart | None
    intended_use: IntendedUsePart = IntendedUsePart()
