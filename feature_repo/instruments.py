"""The clinical questionnaires as data: items, codes, scoring, severity and direction.

An instrument is added here, and nowhere else: readers, checks, suites and features go through
INSTRUMENTS. Sources: PHQ-9, Kroenke 2001 (J Gen Intern Med 16:606-613); PHQ-8, Kroenke 2009
(J Affect Disord 114:163-173); PHQ-2, Kroenke 2003 (Med Care 41:1284-1292); GAD-7, Spitzer 2006
(Arch Intern Med 166:1092-1097); GAD-2, Kroenke 2007 (Ann Intern Med 146:317-325); WHO-5, Topp
2015 (Psychother Psychosom 84:167-176); BDI-II, Beck 1996. Codes: LOINC panels 44249-1, 69737-5
and 55757-9, total 89209-1; WHO-5 has none in LOINC (71969-0 is the PROMIS-10 mental health
score), only SNOMED CT. PHQ-8 and GAD-2 are known by name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

LOINC_SYSTEM = "http://loinc.org"

#: LOINC answer codes of the four answers that PHQ and GAD share.
FREQUENCY_POINTS = {"LA6568-5": 0, "LA6569-3": 1, "LA6570-1": 2, "LA6571-9": 3}
#: The same answers in words, lower case.
FREQUENCY_LABELS = {
    "not at all": 0,
    "several days": 1,
    "more than half the days": 2,
    "nearly every day": 3,
}
WELLBEING_LABELS = {
    "at no time": 0,
    "some of the time": 1,
    "less than half of the time": 2,
    "more than half of the time": 3,
    "most of the time": 4,
    "all of the time": 5,
}

#: Item of PHQ-9 that asks about thoughts of death or self-harm (1-based).
PHQ9_SELF_HARM_ITEM = 9

#: A change of five points on PHQ-9 is clinically significant.
PHQ9_SIGNIFICANT_CHANGE = 5

#: At or above this total PHQ-9 has 88 % sensitivity and specificity for major depression.
PHQ9_CASE_CUTOFF = 10


class ImpossibleAnswerError(ValueError):
    """An answer outside an instrument's range; names the item, never the person."""


@dataclass(frozen=True)
class Instrument:
    """A questionnaire whose items are answered 0 to `max_answer` and summed.

    `severity_floors` maps the lowest total of each level to its name, in ascending order.
    `panel_codes` and `total_codes` are (system, code). `item_loincs` may be empty where items
    have no code. `total_range_without_items` is the highest total of an instrument of which only
    totals are kept. `self_harm_item` (1-based) asks about thoughts of death or self-harm.
    `short_form_of` names the longer instrument whose first items it shares; `is_gate` that those
    items alone, unnamed, are this short form and not a longer one with gaps.
    """

    name: str
    severity_floors: tuple[tuple[int, str], ...]
    item_count: int = 0
    max_answer: int = 3
    higher_is_worse: bool = True
    panel_codes: tuple[tuple[str, str], ...] = ()
    total_codes: tuple[tuple[str, str], ...] = ()
    item_loincs: tuple[str, ...] = ()
    answer_points: Mapping[str, int] = field(default_factory=dict)
    answer_labels: Mapping[str, int] = field(default_factory=dict)
    self_harm_item: int | None = None
    short_form_of: str | None = None
    is_gate: bool = False
    total_range_without_items: int | None = None

    @property
    def key(self) -> str:
        """Return the name as feature names write it: `phq9`."""
        return self.name.replace("-", "").lower()

    @property
    def max_total(self) -> int:
        if self.total_range_without_items is not None:
            return self.total_range_without_items
        return self.max_answer * self.item_count

    def check_answers(self, answers: Sequence[int | None]) -> None:
        """Raise ImpossibleAnswerError unless every item is in range or missing."""
        if len(answers) != self.item_count:
            raise ImpossibleAnswerError(
                f"{self.name} has {self.item_count} items, {len(answers)} given"
            )
        for number, answer in enumerate(answers, 1):
            if answer is not None and not self._is_possible(answer):
                raise ImpossibleAnswerError(
                    f"{self.name} item_{number} is {answer!r}, allowed are 0 to {self.max_answer}"
                )

    def _is_possible(self, answer: int) -> bool:
        is_whole = isinstance(answer, int) and not isinstance(answer, bool)
        return is_whole and 0 <= answer <= self.max_answer

    def total(self, answers: Sequence[int | None]) -> int | None:
        """Return the sum of all items, or None when one is missing.

        No imputation: a total of fewer items would understate severity.
        """
        self.check_answers(answers)
        given = [answer for answer in answers if answer is not None]
        return sum(given) if len(given) == self.item_count else None

    def severity(self, total: int) -> str:
        """Return the published severity level of a total score.

        Raises ImpossibleAnswerError for a total that cannot be reached.
        """
        if not 0 <= total <= self.max_total:
            raise ImpossibleAnswerError(
                f"{self.name} total is {total}, allowed are 0 to {self.max_total}"
            )
        return next(name for floor, name in reversed(self.severity_floors) if total >= floor)


def _loinc(*codes: str) -> tuple[tuple[str, str], ...]:
    return tuple((LOINC_SYSTEM, code) for code in codes)


PHQ9 = Instrument(
    name="PHQ-9",
    item_count=9,
    panel_codes=_loinc("44249-1"),
    total_codes=_loinc("44261-6"),
    item_loincs=(
        "44250-9",
        "44255-8",
        "44259-0",
        "44254-1",
        "44251-7",
        "44258-2",
        "44252-5",
        "44253-3",
        "44260-8",
    ),
    severity_floors=(
        (0, "minimal"),
        (5, "mild"),
        (10, "moderate"),
        (15, "moderately severe"),
        (20, "severe"),
    ),
    answer_points=FREQUENCY_POINTS,
    answer_labels=FREQUENCY_LABELS,
    self_harm_item=PHQ9_SELF_HARM_ITEM,
)

PHQ8 = Instrument(
    name="PHQ-8",
    item_count=8,
    item_loincs=PHQ9.item_loincs[:8],
    severity_floors=PHQ9.severity_floors,
    answer_points=FREQUENCY_POINTS,
    answer_labels=FREQUENCY_LABELS,
    # Eight items without a name may be a PHQ-9 whose item 9 was left out: never a gate.
    short_form_of="PHQ-9",
)

PHQ2 = Instrument(
    name="PHQ-2",
    item_count=2,
    panel_codes=_loinc("55757-9"),
    total_codes=_loinc("55758-7"),
    item_loincs=PHQ9.item_loincs[:2],
    severity_floors=((0, "negative"), (3, "positive")),
    answer_points=FREQUENCY_POINTS,
    answer_labels=FREQUENCY_LABELS,
    short_form_of="PHQ-9",
    is_gate=True,
)

GAD7 = Instrument(
    name="GAD-7",
    item_count=7,
    panel_codes=_loinc("69737-5"),
    total_codes=_loinc("70274-6"),
    item_loincs=(
        "69725-0",
        "68509-9",
        "69733-4",
        "69734-2",
        "69735-9",
        "69689-8",
        "69736-7",
    ),
    severity_floors=((0, "minimal"), (5, "mild"), (10, "moderate"), (15, "severe")),
    answer_points=FREQUENCY_POINTS,
    answer_labels=FREQUENCY_LABELS,
)

GAD2 = Instrument(
    name="GAD-2",
    item_count=2,
    item_loincs=GAD7.item_loincs[:2],
    severity_floors=((0, "negative"), (3, "positive")),
    answer_points=FREQUENCY_POINTS,
    answer_labels=FREQUENCY_LABELS,
    short_form_of="GAD-7",
    is_gate=True,
)

WHO5 = Instrument(
    name="WHO-5",
    item_count=5,
    max_answer=5,
    higher_is_worse=False,
    panel_codes=(("http://snomed.info/sct", "1144665009"),),
    severity_floors=((0, "likely depression"), (8, "reduced well-being"), (13, "good well-being")),
    answer_labels=WELLBEING_LABELS,
)

BDI2 = Instrument(
    name="BDI-II",
    total_range_without_items=63,
    total_codes=_loinc("89209-1"),
    severity_floors=((0, "minimal"), (14, "mild"), (20, "moderate"), (29, "severe")),
)

INSTRUMENTS = {
    instrument.name: instrument for instrument in (PHQ9, GAD7, PHQ8, PHQ2, GAD2, WHO5, BDI2)
}

#: Instruments besides the two that every screening may carry.
OTHER_INSTRUMENTS = tuple(
    instrument for instrument in INSTRUMENTS.values() if instrument not in (PHQ9, GAD7)
)

MAX_ITEM_COUNT = max(instrument.item_count for instrument in INSTRUMENTS.values())
#: Names of the answers to items 1, 2, … in a row of a survey.
ITEM_COLUMNS = tuple(f"item_{number}" for number in range(1, MAX_ITEM_COUNT + 1))
