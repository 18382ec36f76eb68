"""The crisis rule: the self-harm item of PHQ-9, regardless of any model.

Item 9 asks about thoughts of death or self-harm. An answer above 0 forces the top band
and a review. A negative answer never lowers anything: most people who died by suicide
had answered "not at all" (Simon 2016, doi 10.1176/appi.ps.201500149).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from feature_repo.answer_features import STORED_PHQ9_ITEMS
from feature_repo.instruments import PHQ9, PHQ9_SELF_HARM_ITEM
from feature_repo.online import Answers

#: PHQ-9 asks about the last two weeks; a stored answer to item 9 is used for as long.
STORED_ANSWER_SPEAKS_DAYS = 14

#: The highest total that leaves item 9 open; above it, item 9 must have been above 0.
_MAX_TOTAL_WITHOUT_ITEM_9 = PHQ9.max_total - PHQ9.max_answer


#: Level of a crisis whose answer cannot be read: it may be any answer, so it counts as the worst.
UNKNOWN_LEVEL = PHQ9.max_answer


class SelfHarmSignal(StrEnum):
    """The self-harm item of a request."""

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


@dataclass(frozen=True)
class CrisisFinding:
    """The worst that is known about thoughts of self-harm.

    `level` is the answer to item 9 (0 to 3) that orders crises in the queue; `is_stored` means
    that a stored answer decides, because the request brought none or a lower one.
    """

    signal: SelfHarmSignal
    level: int
    is_stored: bool

    @property
    def forces_top_band(self) -> bool:
        return self.signal.forces_top_band


def find_crisis(
    answers: Answers, values: Mapping[str, float], closed_at: datetime | None
) -> CrisisFinding:
    """Return the worst of what was sent and of a stored PHQ-9 of the last two weeks.

    A negative answer lowers no stored crisis. Only a clinician closes one: a review of a crisis
    decided at `closed_at`, on the day of the stored answer or later.
    """
    sent = find_sent_crisis(answers)
    if sent.forces_top_band:
        return sent
    stored = find_stored_crisis(values)
    if stored.forces_top_band and not is_decided_since(answers, values, closed_at):
        return stored
    return sent


def find_sent_crisis(answers: Answers) -> CrisisFinding:
    """Return the finding of the request alone about self-harm."""
    signal = read_signal(answers.phq9, answers.phq9_total)
    item = answers.phq9[PHQ9_SELF_HARM_ITEM - 1] if answers.phq9 is not None else None
    return CrisisFinding(signal, measure_level(signal, item), is_stored=False)


def find_stored_crisis(values: Mapping[str, float]) -> CrisisFinding:
    """Return the finding of the last stored PHQ-9 about self-harm, if it is recent enough."""
    signal = read_stored_signal(values)
    item = values.get(STORED_PHQ9_ITEMS[PHQ9_SELF_HARM_ITEM - 1], math.nan)
    level = measure_level(signal, None if math.isnan(item) else item)
    return CrisisFinding(signal, level, is_stored=True)


def measure_level(signal: SelfHarmSignal, item: float | None) -> int:
    if not signal.forces_top_band:
        return 0
    return UNKNOWN_LEVEL if item is None else int(item)


def is_decided_since(
    answers: Answers, values: Mapping[str, float], decided_at: datetime | None
) -> bool:
    """Return True if a clinician decided a review on the day of the stored PHQ-9 or later."""
    days = values.get("days_since_phq9", math.nan)
    if decided_at is None or math.isnan(days):
        return False
    stored_on = answers.index_time.astimezone(UTC).date() - timedelta(days=int(days))
    return decided_at.astimezone(UTC).date() >= stored_on


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
    """Return the finding of the last stored PHQ-9, from its features.

    One of more than two weeks ago is ignored.
    """
    days = values.get("days_since_phq9", math.nan)
    items = [values.get(name, math.nan) for name in STORED_PHQ9_ITEMS]
    if not days <= STORED_ANSWER_SPEAKS_DAYS or all(map(math.isnan, items)):
        return SelfHarmSignal.NOT_ASKED
    asked = items[PHQ9_SELF_HARM_ITEM - 1]
    return _read_item(None if math.isnan(asked) else int(asked))


def _read_item(answer: int | None) -> SelfHarmSignal:
    if answer is None:
        return SelfHarmSignal.UNREADABLE
    return SelfHarmSignal.PRESENT if answer > 0 else SelfHarmSignal.DENIED
