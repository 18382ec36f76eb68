"""What callers may send. Unknown fields and lenient types are refused."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from feature_repo.instruments import FREQUENCY_LABELS, GAD7, PHQ9, PHQ9_SELF_HARM_ITEM
from serving.http.individual import IndividualBody
from serving.http.strict_json import StrictBody

#: What an idempotency key may look like: it is kept, and must not contain a person's name.
IDEMPOTENCY_KEY = r"^[A-Za-z0-9_-]{8,64}$"

#: How far a caller's clock may be ahead of ours.
CLOCK_TOLERANCE = timedelta(minutes=5)

#: Earlier instants are slips: both questionnaires are younger (2001 and 2006).
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)

#: A person whose consent `make run` records, so that the example of /docs gets an answer there.
EXAMPLE_PATIENT_ID = "4711"
EXAMPLE: dict[str, Any] = {
    "patient_id": EXAMPLE_PATIENT_ID,
    "survey_data": {"phq9": [2, 2, 1, 2, 1, 2, 1, 1, 0], "gad7": [1, 2, 1, 1, 0, 1, 2]},
}


def _validate_text(value: Any) -> Any:
    # Otherwise a number would pass as seconds since 1970.
    if value is not None and not isinstance(value, str | datetime):
        raise ValueError("must be an ISO 8601 instant with a time zone")
    return value


def _validate_past(moment: datetime) -> datetime:
    if moment > datetime.now(UTC) + CLOCK_TOLERANCE:
        raise ValueError("must not lie in the future")
    if moment < EARLIEST:
        raise ValueError(f"must not lie before {EARLIEST:%Y-%m-%d}")
    return moment


def _blank_unreadable_item_9(answers: Any) -> Any:
    """Return the answers with item 9 blanked where it is no answer of the questionnaire.

    The crisis rule then counts it as present, and the person is answered and queued, where a
    refusal of the request would leave a possible crisis without either.
    """
    if not isinstance(answers, list) or len(answers) != PHQ9.item_count:
        return answers
    item = answers[PHQ9_SELF_HARM_ITEM - 1]
    is_whole = isinstance(item, int) and not isinstance(item, bool)
    is_answer = is_whole and 0 <= item <= PHQ9.max_answer
    if is_answer:
        return answers
    return [*answers[: PHQ9_SELF_HARM_ITEM - 1], None, *answers[PHQ9_SELF_HARM_ITEM:]]


#: What each item asks about, in order.
PHQ9_TOPICS = (
    *("little interest or pleasure", "feeling down", "sleep", "tiredness", "appetite"),
    *("feeling bad about oneself", "concentration", "slowness or restlessness"),
    "thoughts of death or self-harm",
)
GAD7_TOPICS = (
    *("nervousness", "uncontrolled worry", "worry about many things", "trouble relaxing"),
    *("restlessness", "irritability", "fear that something awful happens"),
)


def describe_items(topics: Sequence[str]) -> str:
    """Return the order and the meaning of a questionnaire's answers."""
    numbered = ", ".join(f"{number} {topic}" for number, topic in enumerate(topics, 1))
    words = ", ".join(f"{points} {text}" for text, points in FREQUENCY_LABELS.items())
    return f"In the order of the items: {numbered}. Each is {words}; null: not answered."


Phq9Answer = Annotated[int, Field(ge=0, le=PHQ9.max_answer)]
Gad7Answer = Annotated[int, Field(ge=0, le=GAD7.max_answer)]
Instant = Annotated[
    AwareDatetime,
    BeforeValidator(_validate_text),
    AfterValidator(_validate_past),
    Field(strict=False),
]
Phq9Items = Annotated[
    list[Phq9Answer | None],
    Field(
        min_length=PHQ9.item_count,
        max_length=PHQ9.item_count,
        description=describe_items(PHQ9_TOPICS)
        + " An item 9 that is none of these counts as present.",
    ),
    BeforeValidator(_blank_unreadable_item_9),
]
Gad7Items = Annotated[
    list[Gad7Answer | None],
    Field(
        min_length=GAD7.item_count,
        max_length=GAD7.item_count,
        description=describe_items(GAD7_TOPICS),
    ),
]


class SurveyData(StrictBody):
    """Answers of the questionnaire being screened; null where an item was not answered."""

    phq9: Phq9Items | None = None
    gad7: Gad7Items | None = None
    phq9_score: Annotated[int, Field(ge=0, le=PHQ9.max_total)] | None = Field(
        default=None, description="PHQ-9 total, where the items are not known."
    )

    @model_validator(mode="after")
    def _agree_on_the_total(self) -> Self:
        total = None if self.phq9 is None else PHQ9.total(self.phq9)
        if None not in (total, self.phq9_score) and total != self.phq9_score:
            raise ValueError("phq9_score is not the sum of phq9")
        return self

    @property
    def has_answers(self) -> bool:
        return any(part is not None for part in (self.phq9, self.gad7, self.phq9_score))


class ScreeningRequest(IndividualBody):
    """One individual to screen, by pseudonym or by the identifier that is hashed on arrival."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    survey_data: SurveyData | None = None
    index_time: Instant | None = Field(
        default=None, description="When the answers were given; now when left out."
    )
    consent_verified: bool | None = Field(
        default=None,
        description="The caller's own statement. It never replaces the check of our records.",
    )

    @property
    def answers(self) -> SurveyData:
        return self.survey_data or SurveyData()
