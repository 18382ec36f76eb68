"""Parts of an answer that scoring makes: reasons, what-if results, rules."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Direction = Literal["raises", "lowers"]
Size = Literal["large", "moderate", "small"]


class AnswerPart(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)


class ReasonPart(AnswerPart):
    """One feature's part in the score."""

    feature: str
    label: str
    value: float | None = Field(description="Null when missing.")
    unit: str
    usual_low: float | None
    usual_high: float | None
    direction: Direction
    size: Size
    effect: float = Field(description="Contribution to the log-odds.")
    text: str


class ChangePart(AnswerPart):
    label: str
    unit: str
    value: float
    instead_of: float


class CounterfactualPart(AnswerPart):
    changes: list[ChangePart] = Field(description="Only what a person can change.")
    probability: float
    risk_score: float
    text: str = Field(description="What the release would answer; not what would happen.")


class RulePart(AnswerPart):
    text: str
    probability: float = Field(description="Mean estimate of people the rule holds for.")
    share: float = Field(description="Share of people the rule holds for.")
    fidelity: float = Field(description="Share of the release's variance the rules tell.")
