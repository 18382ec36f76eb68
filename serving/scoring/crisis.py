"""The crisis rule: what the self-harm item of PHQ-9 says, whatever any model says.

Item 9 asks about thoughts of death or self-harm. An answer above 0 forces the top band
and a review. A negative answer never lowers anything: most people who died by suicide
had answered "not at all" (Simon 2016, doi 10.1176/appi.ps.201500149).
"""

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum

from feature_repo.instruments import MAX_ANSWER, PHQ9, PHQ9_SELF_HARM_ITEM

#: PHQ-9 asks about the last two weeks; a stored answer to item 9 speaks for as long.
STORED_ANSWER_SPEAKS_DAYS = 14

#: The highest total that leaves item 9 open; above it, item 9 must have been above 0.
_MAX_TOTAL_WITHOUT_ITEM_9 = MAX_ANSWER * (PHQ9.item_count - 1)


class SelfHarmSignal(StrEnum):
    """What a request says about thoughts of self-harm."""

    PRESENT = "present"
    DENIED = "denied"
    #: PHQ-9 was answered item by item, and item 9 is not there to read.
    UNREADABLE = "unreadable"
    #: A total was sent that leaves the answer to item 9 open.
    UNKNOWN = "unknown"
    #: No PHQ-9 came with the request.
    NOT_ASKED = "not_asked"

    @property
    def forces_top_band(self) -> bool:
        # An unreadable answer may be any answer: it counts like the worst one.
        return self in (SelfHarmSignal.PRESENT, SelfHarmSignal.UNREADABLE)


def read_signal(phq9: Sequence[int | None] | None, phq9_total: int | None) -> SelfHarmSignal:
    """Return what checked PHQ-9 answers, or a total without them, say about self-harm."""
    if phq9 is not None:
        return _read_item(phq9[PHQ9_SELF_HARM_ITEM - 1])
    if phq9_total is None:
        return SelfHarmSignal.NOT_ASKED
    if phq9_total > _MAX_TOTAL_WITHOUT_ITEM_9:
        return SelfHarmSignal.PRESENT
    return SelfHarmSignal.DENIED if phq9_total == 0 else SelfHarmSignal.UNKNOWN


def read_stored_signal(values: Mapping[str, float]) -> SelfHarmSignal:
    """Return what the last stored PHQ-9 says, by the features it was made into.

    One of more than two weeks ago says nothing.
    """
    days = values.get("days_since_phq9", math.nan)
    items = [values.get(f"phq9_item_{n}", math.nan) for n in range(1, PHQ9.item_count + 1)]
    if not days <= STORED_ANSWER_SPEAKS_DAYS or all(map(math.isnan, items)):
        return SelfHarmSignal.NOT_ASKED
    asked = items[PHQ9_SELF_HARM_ITEM - 1]
    return _read_item(None if math.isnan(asked) else int(asked))


def _read_item(answer: int | None) -> SelfHarmSignal:
    if answer is None:
        return SelfHarmSignal.UNREADABLE
    return SelfHarmSignal.PRESENT if answer > 0 else SelfHarmSignal.DENIED
