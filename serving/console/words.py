"""Values as text on a page: instants, waiting times, bands, uncertainty, data types."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from jinja2 import pass_context
from jinja2.runtime import Context

from serving.database.lenient_types import Unreadable

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)

#: Colours of nhsuk tags; the word beside each carries the meaning.
BAND_COLOURS = {"critical": "red", "high": "orange", "moderate": "yellow", "low": "grey"}
BAND_WORDS = {
    "critical": "Critical: review within the hour",
    "high": "High: review within a day",
    "moderate": "Moderate: review within three days",
    "low": "Low priority is not low risk",
}
DATA_TYPES = {
    "survey": "questionnaires",
    "wearable": "wearable data",
    "emr": "care events",
    "questionnaire": "questionnaire items",
}
#: Groups of data by the view of the feature store that holds them.
DATA_GROUPS = {
    "wearable_windows": "wearable data",
    "weekly_sequence": "weekly wearable data",
    "care_history": "care events",
    "survey_history": "questionnaire on record",
    "sequence_outputs": "estimates from weekly data",
}
REASON_CODES = {
    "clinical_assessment": "My clinical assessment differs",
    "data_wrong_or_old": "The data are wrong or old",
    "already_in_care": "The person is already in care for this",
    "circumstances_not_in_data": "Circumstances that the data do not hold",
    "answers_misunderstood": "The questionnaire was misunderstood",
    "other": "Another reason (see comment)",
}
ACTIONS = {
    "claimed": "claimed",
    "released": "gave back to the queue",
    "noted": "wrote a note",
    "agree": "agreed with the priority",
    "override": "set another priority",
    "refer": "referred",
    "crisis_override": "raised a crisis",
    "contact": "recorded a contact attempt",
}
#: Below the first, the release abstains; see the card for how confidence is made.
CONFIDENCE_WORDS = (
    (0.5, "The estimate is too uncertain to stand alone: rely on your own assessment."),
    (0.7, "The estimate is rather uncertain: this case resembles few that the model has seen."),
    (0.85, "The estimate is moderately certain."),
    (1.01, "The estimate is as certain as this model's estimates get."),
)


#: By the share of people whose estimate varies at least as much when the model is fitted again.
STEADINESS_WORDS = (
    (
        0.1,
        "Fitted on other people, the model would often say something else about this person: few "
        "people's estimates vary as much.",
    ),
    (
        0.5,
        "Fitted on other people, the model could say something else: more than half of people "
        "have a steadier estimate.",
    ),
    (
        1.01,
        "Fitted on other people, the model would say much the same: at least half of people have "
        "a less steady estimate.",
    ),
)
UNKNOWN_STEADINESS = (
    "How steady the estimate is cannot be known for this person: rely on your own assessment."
)


@pass_context
def show_instant(context: Context, moment: datetime | str | Unreadable | None) -> str:
    """Return "28 Nov 2026, 22:59 UTC" in the zone of the settings; "unknown" for None."""
    if isinstance(moment, Unreadable):
        return "cannot be read"
    instant = read_moment(moment)
    if instant is None:
        return "unknown"
    local = instant.astimezone(context["zone"])
    return f"{local.day} {local:%b %Y, %H:%M %Z}"


@pass_context
def show_day(context: Context, moment: datetime | str | None) -> str:
    instant = read_moment(moment)
    if instant is None:
        return "unknown"
    local = instant.astimezone(context["zone"])
    return f"{local.day} {local:%b %Y}"


def read_moment(moment: datetime | str | None) -> datetime | None:
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    return moment


def show_age(moment: datetime | str | None) -> str:
    """Return how long ago a moment was, in the largest unit that fits: "3 hours ago"."""
    instant = read_moment(moment)
    if instant is None:
        return "of unknown age"
    span = datetime.now(UTC) - instant
    return "just now" if span < timedelta(minutes=1) else f"{show_span(span)} ago"


def show_wait(moment: datetime) -> str:
    return show_span(datetime.now(UTC) - moment)


def show_due(due_at: datetime) -> str:
    """Return "due in 40 minutes", or "2 hours overdue"."""
    left = due_at - datetime.now(UTC)
    return f"due in {show_span(left)}" if left > timedelta(0) else f"{show_span(-left)} overdue"


def show_span(span: timedelta) -> str:
    minutes = int(span.total_seconds() // 60)
    if span < HOUR:
        return count(max(minutes, 0), "minute")
    if span < 2 * DAY:
        return count(minutes // 60, "hour")
    return count(span.days, "day")


def count(number: int, thing: str) -> str:
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def describe_confidence(confidence: float) -> str:
    return next(words for limit, words in CONFIDENCE_WORDS if confidence < limit)


def describe_steadiness(confidence: float) -> str:
    """Return what the share of people whose estimate varies at least as much says of this one."""
    if confidence <= 0:
        return UNKNOWN_STEADINESS
    return next(words for limit, words in STEADINESS_WORDS if confidence < limit)


def show_percent(share: float | None) -> str:
    """Return a share as a whole percentage; small ones keep their meaning as "under 1%"."""
    if share is None:
        return "not estimated"
    return "under 1%" if 0 < share < 0.005 else f"{share:.0%}"


def shorten_pseudonym(anonymized_id: str) -> str:
    return f"{anonymized_id[:8]}…"


def look_up(words: dict[str, str]) -> Callable[[Any], str]:
    """Return a filter that puts a code into words; an unknown one keeps its own."""

    def translate(code: Any) -> str:
        return words.get(str(code), str(code).replace("_", " "))

    return translate


def capitalize_first(text: str) -> str:
    """Return a sentence with a capital first letter, the rest as it was."""
    return text[:1].upper() + text[1:]


FILTERS: dict[str, Callable[..., Any]] = {
    "instant": show_instant,
    "day": show_day,
    "age": show_age,
    "wait": show_wait,
    "due": show_due,
    "percent": show_percent,
    "pseudonym": shorten_pseudonym,
    "confidence": describe_confidence,
    "steadiness": describe_steadiness,
    "band": look_up(BAND_WORDS),
    "band_colour": look_up(BAND_COLOURS),
    "data_type": look_up(DATA_TYPES),
    "data_group": look_up(DATA_GROUPS),
    "reason_code": look_up(REASON_CODES),
    "action": look_up(ACTIONS),
    "plain": look_up({}),
    "capitalize_first": capitalize_first,
    "count": count,
}
