"""A screening as a CDS Hooks card: one sentence, an indicator, the reasons, and what to do next.

Source: CDS Hooks 2.0, "CDS Service Response" (invariants cds-resp-1 to cds-resp-7).
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from serving.fhir.elements import NAMESPACE, Resource
from serving.fhir.override_reasons import list_override_reasons
from serving.screening.answers import INTENDED_USE, INTENDED_USE_PATH

#: CDS Hooks wants fewer than 140 characters.
LONGEST_SUMMARY = 139
MOST_REASONS = 3
#: Bands whose people a card is shown for, beside everyone who is queued.
SHOWN_BANDS = ("high", "critical")


def is_shown(answer: Mapping[str, Any]) -> bool:
    """Return True if a screening interrupts a clinician: it is queued, or of a shown band."""
    return bool(answer["needs_review"]) or answer["risk_band"] in SHOWN_BANDS


def make_card(
    answer: Mapping[str, Any],
    review_id: UUID | None,
    assessment: Resource,
    public_url: str,
    guidance: str | None,
) -> Resource:
    """Return the card of an answer; `assessment` is what the suggestion creates in the EHR.

    The card's uuid is the prediction's id, by which feedback finds it.
    """
    return {
        "uuid": str(answer["prediction_id"]),
        "summary": shorten(answer["summary"]),
        "detail": "\n\n".join(describe(answer, guidance)),
        "indicator": choose_indicator(answer),
        "source": make_source(public_url),
        "suggestions": [make_suggestion(answer, assessment)],
        "selectionBehavior": "at-most-one",
        "overrideReasons": list_override_reasons(),
        "links": [make_link(answer, review_id, public_url)],
    }


def make_notice(summary: str, detail: str, public_url: str, path: str, label: str) -> Resource:
    """Return a card that estimates nothing: why there is no screening, and where to go on."""
    return {
        "summary": shorten(summary),
        "detail": detail,
        "indicator": "info",
        "source": make_source(public_url),
        "links": [{"label": label, "url": f"{public_url}{path}", "type": "absolute"}],
    }


def shorten(text: str) -> str:
    return text if len(text) <= LONGEST_SUMMARY else f"{text[: LONGEST_SUMMARY - 1]}…"


def choose_indicator(answer: Mapping[str, Any]) -> str:
    """Return `critical` for the crisis rule only: a score alone is never critical."""
    if answer["decided_by"] == "crisis_rule":
        return "critical"
    return "warning" if is_shown(answer) else "info"


def make_source(public_url: str) -> Resource:
    return {"label": "MHRAS review priority", "url": f"{public_url}{INTENDED_USE_PATH}"}


def make_suggestion(answer: Mapping[str, Any], assessment: Resource) -> Resource:
    return {
        "label": "Add this review priority to the record",
        "uuid": str(name_suggestion(answer["prediction_id"])),
        "actions": [
            {
                "type": "create",
                "description": "Create a RiskAssessment with the estimate and its reasons",
                "resource": assessment,
            }
        ],
    }


def name_suggestion(prediction_id: UUID | str) -> UUID:
    """Return the id of a card's suggestion, the same whenever the card is made."""
    return uuid.uuid5(NAMESPACE, f"suggestion:{prediction_id}")


def make_link(answer: Mapping[str, Any], review_id: UUID | None, public_url: str) -> Resource:
    path = (
        f"/console/predictions/{answer['prediction_id']}"
        if review_id is None
        else f"/console/cases/{review_id}"
    )
    return {"label": "Open the case", "url": f"{public_url}{path}", "type": "absolute"}


def describe(answer: Mapping[str, Any], guidance: str | None) -> Iterator[str]:
    """Yield the paragraphs of a card in Markdown, without HTML."""
    if guidance is not None:
        yield f"**{guidance}**"
    why = [*_list_texts(answer["review_reasons"]), *_list_raising(answer["reasons"])]
    if why:
        yield "**Why**\n\n" + "\n".join(f"- {text}" for text in why)
    estimates = [str(part["text"]) for part in answer.get("outcomes") or [] if part.get("text")]
    if estimates:
        yield "**Estimates**\n\n" + "\n".join(f"- {text}" for text in estimates)
    elif answer.get("interval") and answer.get("probability") is not None:
        low, high = (f"{answer['interval'][end]:.0%}" for end in ("low", "high"))
        yield f"**Uncertainty**: {answer['probability']:.0%}, between {low} and {high}."
    yield from describe_data(answer)
    yield f"*{INTENDED_USE}*"


def describe_data(answer: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is missing and how old the rest is."""
    if answer.get("missing_data"):
        yield f"**No data**: {', '.join(answer['missing_data'])}."
    ages = [f"{name.replace('_', ' ')} {str(at)[:10]}" for name, at in _list_ages(answer)]
    if ages:
        yield f"**Data as of**: {', '.join(ages)}."
    if answer.get("degraded"):
        yield f"**Without**: {', '.join(answer['degraded'])} (not available for this answer)."


def _list_ages(answer: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(name, at) for name, at in (answer.get("data_as_of") or {}).items() if at is not None]


def _list_texts(parts: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(part["text"]) for part in parts]


def _list_raising(reasons: Sequence[Mapping[str, Any]]) -> list[str]:
    raising = [reason for reason in reasons if reason["direction"] == "raises"]
    return _list_texts(raising[:MOST_REASONS])
