"""What the page of one case shows, composed from records: pure functions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from feature_repo.instruments import GAD7, PHQ9, Instrument
from serving.console.questions import ANSWERS, QUESTIONS
from serving.database.tables import Prediction

#: Earlier screenings that the course shows.
COURSE_LENGTH = 20
ANSWERED = {PHQ9.name: "answered_phq9_", GAD7.name: "answered_gad7_"}
FEATURE_TOTALS = {PHQ9.name: "phq9_total", GAD7.name: "gad7_total"}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class AnsweredItem:
    """An item of a questionnaire; `answer` is None where it was not answered."""

    number: int
    question: str
    answer: int | None
    words: str


@dataclass(frozen=True)
class AnsweredQuestionnaire:
    name: str
    total: int | None
    most: int
    severity: str
    items: list[AnsweredItem]


@dataclass(frozen=True)
class CoursePoint:
    """One screening of the course; a total is None where that questionnaire is not known."""

    at: datetime
    phq9: int | None
    gad7: int | None
    risk_score: float
    band: str
    prediction_id: Any


def list_answered(prediction: Prediction) -> list[AnsweredQuestionnaire]:
    """Return the questionnaires that were sent with a screening, item by item."""
    sent = prediction.inputs.get("request", {})
    return [
        describe_questionnaire(instrument, answers)
        for instrument in (PHQ9, GAD7)
        if (answers := read_answers(instrument, sent)) is not None
    ]


def read_answers(instrument: Instrument, sent: Mapping[str, Any]) -> list[int | None] | None:
    """Return the answers to an instrument by item, None where it was not sent at all."""
    prefix = ANSWERED[instrument.name]
    names = [f"{prefix}{number}" for number in range(1, instrument.item_count + 1)]
    answers = [sent.get(name) for name in names]
    if all(answer is None for answer in answers):
        return None
    return [None if answer is None else int(answer) for answer in answers]


def describe_questionnaire(
    instrument: Instrument, answers: Sequence[int | None]
) -> AnsweredQuestionnaire:
    total = instrument.total(answers)
    return AnsweredQuestionnaire(
        name=instrument.name,
        total=total,
        most=instrument.max_total,
        severity=instrument.severity(total) if total is not None else "not known: items missing",
        items=[
            AnsweredItem(
                number,
                QUESTIONS[instrument.name][number - 1],
                answer,
                "not answered" if answer is None else ANSWERS[answer],
            )
            for number, answer in enumerate(answers, 1)
        ],
    )


def make_course(predictions: Sequence[Prediction]) -> list[CoursePoint]:
    """Return the screenings of a person, oldest first, with the totals each of them saw."""
    points = [make_point(prediction) for prediction in predictions]
    return sorted(points, key=lambda point: point.at)


def make_point(prediction: Prediction) -> CoursePoint:
    return CoursePoint(
        at=prediction.created_at,
        phq9=find_total(PHQ9, prediction.inputs),
        gad7=find_total(GAD7, prediction.inputs),
        risk_score=prediction.risk_score,
        band=prediction.risk_band,
        prediction_id=prediction.id,
    )


def find_total(instrument: Instrument, inputs: Mapping[str, Any]) -> int | None:
    """Return the total that was sent with a screening, else the stored one it used."""
    answers = read_answers(instrument, inputs.get("request", {}))
    if answers is not None and (total := instrument.total(answers)) is not None:
        return total
    stored = inputs.get("features", {}).get(FEATURE_TOTALS[instrument.name])
    return None if stored is None else round(stored)


@dataclass(frozen=True)
class Chart:
    """An inline SVG of the course: points in its own units, top left is 0, 0."""

    width: int
    height: int
    left: int
    bottom: int
    phq9: list[tuple[float, float]]
    gad7: list[tuple[float, float]]
    grid: list[tuple[float, int]]
    begin: datetime
    end: datetime

    @property
    def summary(self) -> str:
        """Return what the picture shows in a sentence, for who cannot see it."""
        return f"PHQ-9 and GAD-7 totals of {max(len(self.phq9), len(self.gad7))} screenings"


WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 240, 40, 16, 12, 28
GRID = (0, 5, 10, 15, 20, 27)


def draw_chart(course: Sequence[CoursePoint]) -> Chart | None:
    """Return the chart of a course; None where fewer than two screenings have a total."""
    dated = [point for point in course if point.phq9 is not None or point.gad7 is not None]
    if len(dated) < 2:
        return None
    begin, end = dated[0].at, dated[-1].at
    span = max((end - begin) / timedelta(seconds=1), 1.0)

    def place(name: str) -> Iterator[tuple[float, float]]:
        for point in dated:
            total = getattr(point, name)
            if total is not None:
                share = (point.at - begin) / timedelta(seconds=1) / span
                yield round(LEFT + share * (WIDTH - LEFT - RIGHT), 1), find_height(total)

    return Chart(
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        bottom=HEIGHT - BOTTOM,
        phq9=list(place("phq9")),
        gad7=list(place("gad7")),
        grid=[(find_height(total), total) for total in GRID],
        begin=begin,
        end=end,
    )


def find_height(total: int) -> float:
    """Return how far from the top a PHQ-9 or GAD-7 total is drawn."""
    return round(TOP + (1 - total / PHQ9.max_total) * (HEIGHT - TOP - BOTTOM), 1)
