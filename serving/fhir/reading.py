"""Questionnaires that an EHR sends, as answers of a screening.

QuestionnaireResponses and Observations are read by the reader that ingestion uses, so that both
read alike. Of each instrument the newest answers count; older ones than `MAX_AGE` are no answers
of today.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from feature_repo.fhir_surveys import (
    JOIN_WINDOW,
    is_survey_observation,
    map_questionnaire_response,
    map_survey_observation,
)
from feature_repo.fhir_values import (
    Context,
    IgnoredResourceError,
    RejectedResourceError,
    find_loincs,
)
from feature_repo.instruments import GAD7, INSTRUMENTS, ITEM_COLUMNS, PHQ9
from feature_repo.outcomes import HORIZON_DAYS
from serving.fhir.elements import Resource

#: The horizon of an estimate: older answers are not used for today.
MAX_AGE = timedelta(days=HORIZON_DAYS)


@dataclass(frozen=True)
class Survey:
    """One answered questionnaire; `answers` by item, None where an item was not answered."""

    person_id: str
    instrument: str
    answered_at: datetime
    answers: tuple[int | None, ...]
    total: int | None

    @property
    def is_of_items(self) -> bool:
        return any(answer is not None for answer in self.answers)


@dataclass(frozen=True)
class Findings:
    """The surveys in a list of resources, and why the others contain none."""

    surveys: tuple[Survey, ...]
    problems: tuple[str, ...] = ()


def read_surveys(
    resources: Iterable[Resource], zone: ZoneInfo, full_urls: Mapping[str, str] | None = None
) -> Findings:
    """Return the surveys of QuestionnaireResponses and Observations.

    `zone` dates days; `full_urls` leads from an entry's fullUrl in a Bundle to `Type/id`.

    Resources of other kinds and without an instrument are passed over; a resource of an instrument
    that cannot be read is a problem that names the element and repeats no value.
    """
    context = Context(dict(full_urls or {}))
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    for resource in resources:
        try:
            rows.extend(_map_resource(resource, context))
        except RejectedResourceError as error:
            problems.append(f"{resource.get('resourceType')}.{error}")
        except IgnoredResourceError:
            continue
    surveys = []
    for unit in _join_parts(rows, zone):
        try:
            surveys.append(_make_survey(unit))
        except ValueError as error:
            problems.append(str(error))
    return Findings(tuple(surveys), tuple(problems))


def _map_resource(resource: Resource, context: Context) -> list[dict[str, Any]]:
    kind = resource.get("resourceType")
    if kind == "QuestionnaireResponse":
        return map_questionnaire_response(resource, context)
    if kind == "Observation" and is_survey_observation(find_loincs(resource.get("code"))):
        return [map_survey_observation(resource, context)]
    return []


def _join_parts(rows: Sequence[dict[str, Any]], zone: ZoneInfo) -> list[list[dict[str, Any]]]:
    """Return the rows of each questionnaire; parts of one instrument are joined by their time."""
    dated = [row | {"answered_at": read_instant(row["answered_at"], zone)} for row in rows]
    units: list[list[dict[str, Any]]] = []
    for row in sorted(dated, key=_order_parts):
        last = units[-1][-1] if units else None
        joins = (
            last is not None
            and "part" in row
            and "part" in last
            and all(last[name] == row[name] for name in ("instrument", "person_id"))
            and row["answered_at"] - last["answered_at"] <= JOIN_WINDOW
        )
        if joins:
            units[-1].append(row)
        else:
            units.append([row])
    return units


def _order_parts(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["person_id"], row["instrument"], row["answered_at"]


def read_instant(text: str, zone: ZoneInfo) -> datetime:
    """Return a FHIR dateTime; a day without a time begins at midnight in `zone`."""
    if len(text) == len("2026-01-31"):
        return datetime.combine(date.fromisoformat(text), time(), zone)
    instant = datetime.fromisoformat(text)
    return instant if instant.tzinfo else instant.replace(tzinfo=zone)


def _make_survey(unit: Sequence[dict[str, Any]]) -> Survey:
    instrument = INSTRUMENTS[unit[0]["instrument"]]
    columns = ITEM_COLUMNS[: instrument.item_count]
    answers = tuple(_agree(unit, name) for name in columns)
    instrument.check_answers(answers)
    return Survey(
        person_id=unit[0]["person_id"],
        instrument=instrument.name,
        answered_at=max(row["answered_at"] for row in unit),
        answers=answers,
        total=_agree(unit, "total"),
    )


def _agree(unit: Sequence[dict[str, Any]], name: str) -> int | None:
    given = {row[name] for row in unit if row.get(name) is not None}
    if len(given) > 1:
        raise RejectedResourceError(f"{name}: two resources of one questionnaire differ")
    value = next(iter(given), None)
    if value is not None and value != int(value):
        raise RejectedResourceError(f"{name}: is no whole number")
    return None if value is None else int(value)


def choose_current(surveys: Sequence[Survey], now: datetime) -> dict[str, Survey]:
    """Return the newest survey of each instrument that is not older than `MAX_AGE`, by name.

    Of two of one moment, that with items comes before a bare total.
    """
    current = [survey for survey in surveys if now - MAX_AGE <= survey.answered_at]
    ordered = sorted(current, key=lambda survey: (survey.answered_at, survey.is_of_items))
    return {survey.instrument: survey for survey in ordered}


def make_survey_data(current: Mapping[str, Survey]) -> dict[str, Any]:
    """Return the body of a screening's `survey_data`; empty without PHQ-9 and GAD-7."""
    phq9, gad7 = current.get(PHQ9.name), current.get(GAD7.name)
    survey_data: dict[str, Any] = {}
    if phq9 is not None and phq9.is_of_items:
        survey_data["phq9"] = list(phq9.answers)
    elif phq9 is not None and phq9.total is not None:
        survey_data["phq9_score"] = phq9.total
    if gad7 is not None and gad7.is_of_items:
        survey_data["gad7"] = list(gad7.answers)
    return survey_data
