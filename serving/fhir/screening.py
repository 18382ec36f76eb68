"""Screening on what an EHR sends: consent, answers, one record, as `POST /screen` does.

The same answers within 24 hours are screened once (`Idempotency-Key`, made here).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from feature_repo.instruments import GAD7, PHQ9
from feature_repo.online import make_request_fields
from serving.database.tables import Prediction
from serving.errors import NotFoundError, Principal
from serving.fhir.clients import EhrClient
from serving.fhir.reading import Findings, Survey, make_survey_data
from serving.http.individual import hash_identifier
from serving.http.problems import FieldProblem, InvalidRequestError, list_validation_problems
from serving.screening.answers import ScreeningAnswer
from serving.screening.dependencies import ScreeningDependencies
from serving.screening.records import Caller
from serving.screening.repetition import screen_once
from serving.screening.requests import ScreeningRequest, SurveyData
from serving.screening.screen import find_deadline, make_answers
from serving.settings import Settings


@dataclass(frozen=True)
class EhrCaller:
    """Who calls from an EHR: a registered client, or a clinician with a token of their own."""

    principal: Principal
    request_id: str | None
    client: EhrClient | None = None

    def hash_patient(self, patient_id: str, settings: Settings) -> str:
        """Return the pseudonym of the caller's own patient id, which goes no further."""
        identifier = patient_id if self.client is None else self.client.name_person(patient_id)
        return hash_identifier(identifier, settings)


def require_own(prediction: Prediction, caller: EhrCaller) -> None:
    """Raise NotFoundError for a prediction that a client with a tenant did not ask for itself."""
    client = caller.client
    if client and client.tenant and prediction.user_id != caller.principal.user_id:
        raise NotFoundError("there is no such prediction; it may have been erased")


def require_one_person(surveys: Sequence[Survey], patient_id: str | None) -> str:
    """Return whose surveys these are; raises InvalidRequestError where they are of several people.

    With `patient_id`, they must be that person's.
    """
    people = {survey.person_id for survey in surveys}
    expected = people if patient_id is None else {patient_id}
    if people - expected or len(expected) != 1:
        wrong = FieldProblem(
            field="subject", message="the answers are not of one and the same person"
        )
        raise InvalidRequestError([wrong])
    return next(iter(expected))


def require_readable(findings: Findings) -> None:
    """Raise InvalidRequestError with crisis guidance where an answer cannot be read."""
    if findings.problems:
        error = InvalidRequestError([_make_problem(problem) for problem in findings.problems])
        error.shows_guidance = True
        raise error
    if not findings.surveys:
        wrong = FieldProblem(field="item", message="holds no answer to PHQ-9, GAD-7 or WHO-5")
        raise InvalidRequestError([wrong])


def _make_problem(text: str) -> FieldProblem:
    field, _, message = text.partition(": ")
    return FieldProblem(field=field, message=message or text)


async def screen_surveys(
    current: Mapping[str, Survey],
    anonymized_id: str,
    caller: EhrCaller,
    dependencies: ScreeningDependencies,
    name: str = "",
) -> ScreeningAnswer:
    """Screen a person on the newest answers; `name` is the sender's identifier of the request.

    Raises InvalidRequestError and what a screening raises.
    """
    body = make_body(current, anonymized_id)
    key = name_request(caller.principal.user_id, anonymized_id, name or body.model_dump_json())
    deadline = find_deadline(dependencies.settings)
    asked = Caller(caller.principal, caller.request_id, deadline, key)
    return await screen_once(body, anonymized_id, asked, dependencies)


def make_body(current: Mapping[str, Survey], anonymized_id: str) -> ScreeningRequest:
    """Return the screening request; its index time is that of the newest answers used.

    Raises InvalidRequestError naming each wrong answer.
    """
    data = make_survey_data(current)
    asked = [
        current[instrument.name].answered_at
        for instrument in (PHQ9, GAD7)
        if instrument.name in current
    ]
    moment = max(asked) if data else None
    try:
        return ScreeningRequest(
            anonymized_id=anonymized_id,
            survey_data=SurveyData(**data) if data else None,
            index_time=moment,
        )
    except ValidationError as error:
        raise InvalidRequestError(list_validation_problems(error, "body")) from None


def name_request(user_id: str, anonymized_id: str, content: str) -> str:
    """Return the idempotency key of a request; it holds nothing of what was sent."""
    text = f"{user_id}\n{anonymized_id}\n{content}"
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def rests_on(prediction: Prediction, current: Mapping[str, Survey]) -> bool:
    """Return True if a prediction was made from these very answers."""
    body = make_body(current, prediction.anonymized_id)
    if body.index_time is None:
        return True
    sent = make_request_fields(make_answers(body))
    return _round(prediction.inputs.get("request", {})) == _round(sent)


def _round(fields: Mapping[str, Any]) -> dict[str, float]:
    return {name: round(float(value), 3) for name, value in fields.items() if value is not None}
