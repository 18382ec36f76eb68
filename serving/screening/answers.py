"""What a screening answers. Priority wording throughout: never a diagnosis."""

from datetime import datetime
from enum import StrEnum
from typing import Literal
from uuid import UUID

from pydantic import Field

from feature_repo.outcomes import WORSENING
from serving.scoring.doubts import Doubt
from serving.scoring.estimate import Band
from serving.scoring.parts import AnswerPart, CounterfactualPart, ReasonPart, RulePart

INTENDED_USE_PATH = "/intended-use"
INTENDED_USE = (
    "Puts individuals in order for review by a clinician. Not a diagnosis, not a prediction of "
    "suicide, never a ground to deny, delay or end care. Low priority is not low risk."
)


class ReviewReason(StrEnum):
    """Why a clinician must see a screening, beside the codes of the severity rules."""

    CRISIS_ITEM = "crisis_item"
    STORED_CRISIS_ITEM = "stored_crisis_item"
    UNREADABLE_CRISIS_ITEM = "unreadable_crisis_item"
    CRISIS_ITEM_UNKNOWN = "crisis_item_unknown"
    HIGH_PRIORITY = "high_priority"
    SCORE = "score"
    ABSTENTION = "abstention"
    LIKELY_TO_WORSEN = "likely_to_worsen"
    NO_RELEASE = "no_release"


REVIEW_TEXTS = {
    ReviewReason.CRISIS_ITEM: "PHQ-9 item 9 (thoughts of death or self-harm) is above 0.",
    ReviewReason.STORED_CRISIS_ITEM: "A PHQ-9 of the last 14 days has item 9 above 0 or "
    "unreadable, and no clinician has closed it.",
    ReviewReason.UNREADABLE_CRISIS_ITEM: "PHQ-9 item 9 is unreadable, so it counts as present.",
    ReviewReason.CRISIS_ITEM_UNKNOWN: "Only a PHQ-9 total was sent; ask about item 9.",
    ReviewReason.HIGH_PRIORITY: "The priority is high.",
    ReviewReason.SCORE: "The score reaches the review threshold.",
    ReviewReason.ABSTENTION: "The estimate depends on the people it was trained on: one in four of "
    "its refits on other people would queue this person.",
    ReviewReason.LIKELY_TO_WORSEN: "Likely to worsen: among the 5 % with the highest chance of a "
    "further marked rise or acute care.",
    ReviewReason.NO_RELEASE: "No model was available; the answer rests on the rules alone.",
}


#: Reasons of abstention beside disagreeing refits.
DOUBT_TEXTS = {
    Doubt.NOTHING_KNOWN: "Nothing is known of this person but age, sex and ethnicity.",
    Doubt.UNFAMILIAR: "Wearable, care and survey history are unlike those that the release was "
    "trained on.",
}


class ReviewReasonPart(AnswerPart):
    """Why a clinician must see the screening; codes of severity rules are those of their file."""

    code: str
    text: str


class IntervalPart(AnswerPart):
    """Where this person's probability would lie had the release been trained on other people."""

    low: float
    high: float
    coverage: float = Field(
        description="Share of people for whom a release trained on other people of the same "
        "population gives a probability within the interval."
    )


class OutcomePart(AnswerPart):
    """The probability of one outcome with a sentence of its own."""

    outcome: str = Field(description="Key of the outcome: its name with its version.")
    probability: float | None = Field(description="Null where the release estimates none.")
    interval: IntervalPart | None
    text: str


class TrendPart(AnswerPart):
    created_at: datetime
    risk_score: float
    risk_band: Band
    probability: float | None


class MemberPart(AnswerPart):
    name: str
    outcome: str = Field(
        default=WORSENING.key, description="Key of the outcome that the member estimates."
    )
    registered_model: str
    version: int
    probability: float = Field(description="The estimate of this member alone, not calibrated.")
    weight: float = Field(description="Its weight in the release; 0: it only watches.")


class ReleasePart(AnswerPart):
    name: str
    version: int
    feature_service: str
    simulated_data: bool = Field(
        default=False, description="Whether the release was trained on simulated people."
    )
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
        ge=0,
        le=100,
        description="Review priority; 100 when the crisis rule decides, at least the lower edge "
        "of its band when a severity rule holds.",
    )
    risk_band: Band
    decided_by: Literal["release", "severity_rule", "crisis_rule"] = Field(
        description="What put the score where it is; rules only raise it."
    )
    rules_version: int = Field(
        default=0, description="Version of the severity rules; 0: answered before there were any."
    )
    model_score: float | None = Field(description="The release's own score; null without one.")
    outcome: str = Field(
        default=WORSENING.key,
        description="Outcome of the probability, with its version; earlier answers without it "
        "estimate worsening.",
    )
    probability: float | None = Field(description="Calibrated probability of the outcome.")
    interval: IntervalPart | None
    outcomes: list[OutcomePart] = Field(
        default=[], description="Every outcome the release estimates, that of the score first."
    )
    confidence: float = Field(
        ge=0,
        le=1,
        description="Share of the training population whose estimate varies at least as much when "
        "the release is fitted again on other people; 0 without a release, where the feature store "
        "could not be read, where the case is unlike the training data, and where nothing is "
        "known. Earlier records without `outcomes` keep their meaning: 0.5 is where their release "
        "began to abstain.",
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
    data_as_of: dict[str, datetime | None] = Field(
        description="Moment that each group of data stands for."
    )
    degraded: list[str] = Field(description="Dependencies that were down for this answer.")
    known_individual: bool | None = Field(
        description="False when no data are stored; null when the store could not be read."
    )
    release: ReleasePart | None
    intended_use: IntendedUsePart = IntendedUsePart()
