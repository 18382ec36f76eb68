"""The clinical questionnaires: items, codes, scoring and severity.

Sources: PHQ-9, Kroenke, Spitzer & Williams 2001 (J Gen Intern Med 16:606-613);
GAD-7, Spitzer et al. 2006 (Arch Intern Med 166:1092-1097); codes, LOINC panels
44249-1 and 69737-5.
"""

from collections.abc import Sequence
from dataclasses import dataclass

LOINC_SYSTEM = "http://loinc.org"

#: LOINC answer codes of the four shared answers ("not at all" ... "nearly every day").
ANSWER_POINTS = {"LA6568-5": 0, "LA6569-3": 1, "LA6570-1": 2, "LA6571-9": 3}

MAX_ANSWER = 3

#: Item of PHQ-9 that asks about thoughts of death or self-harm (1-based).
PHQ9_SELF_HARM_ITEM = 9

#: A change of five points on PHQ-9 is clinically significant.
PHQ9_SIGNIFICANT_CHANGE = 5

#: At or above this total PHQ-9 has 88 % sensitivity and specificity for major depression.
PHQ9_CASE_CUTOFF = 10


class ImpossibleAnswerError(ValueError):
    """An answer outside 0-3; names the item, never the person."""


@dataclass(frozen=True)
class Instrument:
    """A questionnaire whose items are answered 0-3 and summed.

    `severity_floors` maps the lowest total of each severity level to its name,
    in ascending order.
    """

    name: str
    panel_loinc: str
    total_loinc: str
    item_loincs: tuple[str, ...]
    severity_floors: tuple[tuple[int, str], ...]

    @property
    def item_count(self) -> int:
        return len(self.item_loincs)

    @property
    def max_total(self) -> int:
        return MAX_ANSWER * self.item_count

    def check_answers(self, answers: Sequence[int | None]) -> None:
        """Raise ImpossibleAnswerError unless every item is 0-3 or missing."""
        if len(answers) != self.item_count:
            raise ImpossibleAnswerError(
                f"{self.name} has {self.item_count} items, {len(answers)} given"
            )
        for number, answer in enumerate(answers, 1):
            if answer is None:
                continue
            if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer <= 3:
                raise ImpossibleAnswerError(
                    f"{self.name} item_{number} is {answer!r}, allowed are 0 to 3"
                )

    def total(self, answers: Sequence[int | None]) -> int | None:
        """Return the sum of all items, or None when one is missing.

        No imputation: a total of fewer items would understate severity.
        """
        self.check_answers(answers)
        given = [answer for answer in answers if answer is not None]
        return sum(given) if len(given) == self.item_count else None

    def severity(self, total: int) -> str:
        """Return the published severity level of a total score."""
        if not 0 <= total <= self.max_total:
            raise ImpossibleAnswerError(
                f"{self.name} total is {total}, allowed are 0 to {self.max_total}"
            )
        return next(name for floor, name in reversed(self.severity_floors) if total >= floor)


PHQ9 = Instrument(
    name="PHQ-9",
    panel_loinc="44249-1",
    total_loinc="44261-6",
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
)

GAD7 = Instrument(
    name="GAD-7",
    panel_loinc="69737-5",
    total_loinc="70274-6",
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
)

INSTRUMENTS = {instrument.name: instrument for instrument in (PHQ9, GAD7)}
