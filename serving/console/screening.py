"""Screening a person by the clinic's own id: the two questionnaires as one form."""

import re
import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from feature_repo.instruments import GAD7, PHQ9, PHQ9_SELF_HARM_ITEM, Instrument
from serving.console.access import Screener
from serving.console.forms import Form, SentForm
from serving.console.known_ids import read_known_ids, remember_id
from serving.console.pages import redirect_to, render_page
from serving.console.questions import ANSWERS, LEAD, QUESTIONS
from serving.dependencies import WorkerServices
from serving.errors import UnusableError
from serving.http.individual import resolve_individual
from serving.http.problems import read_request_id
from serving.screening.records import Caller
from serving.screening.repetition import screen_once
from serving.screening.requests import IDEMPOTENCY_KEY, ScreeningRequest
from serving.screening.screen import find_deadline

router = APIRouter(include_in_schema=False)

SCREEN = "/console/screen"
Individual = Annotated[str | None, Query(max_length=64)]
#: Value of an item that was not answered; for item 9 the crisis rule counts it as present.
NOT_ANSWERED = "none"
KEY_FIELD = "request_key"
POINTS = {str(points): points for points in range(len(ANSWERS))}


@router.get(SCREEN)
def show_form(
    request: Request, services: WorkerServices, _person: Screener, person: Individual = None
) -> Response:
    """Show the form, with the clinic's id where this browser holds it for the person."""
    own_id = read_known_ids(request, services.settings).get(person or "")
    return render_page(request, "screen.html", describe_form() | {"own_id": own_id})


@router.post(SCREEN)
async def screen_person(
    request: Request, services: WorkerServices, person: Screener, form: SentForm
) -> Response:
    """Screen the person, and lead to the answer; a form that is sent twice screens once.

    A refusal without consent is audited, and its page links to the consent of the person.
    """
    values, errors = read_answers(form)
    if errors:
        again = describe_form() | {"errors": errors, "form": form}
        return render_page(request, "screen.html", again, 422)
    body = ScreeningRequest.model_validate(values)
    anonymized_id = resolve_individual(body, services.settings)
    request.state.typed_id = (anonymized_id, str(body.patient_id))
    deadline = find_deadline(services.settings)
    caller = Caller(person.principal, read_request_id(request), deadline, read_key(form))
    answer = await screen_once(body, anonymized_id, caller, services.screening)
    response = redirect_to(f"/console/predictions/{answer.prediction_id}")
    remember_id(request, response, anonymized_id, str(body.patient_id), services.settings)
    return response


def describe_form() -> dict[str, Any]:
    return {
        "lead": LEAD,
        "questionnaires": [(instrument, QUESTIONS[instrument.name]) for instrument in (PHQ9, GAD7)],
        "answers": {
            **{str(points): f"{points}: {words}" for points, words in enumerate(ANSWERS)},
            NOT_ANSWERED: "Not answered",
        },
        "self_harm": PHQ9_SELF_HARM_ITEM,
        "request_key": secrets.token_urlsafe(16),
    }


def read_key(form: Form) -> str:
    """Return the form's own key; raises UnusableError for one that no page contains."""
    key = form.get(KEY_FIELD) or ""
    if not re.fullmatch(IDEMPOTENCY_KEY, key):
        raise UnusableError("open the form again and send it from there")
    return key


def read_answers(form: Form) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the body of a screening and what is wrong with the form, by field.

    A questionnaire of which nothing was chosen was not asked; one that was begun needs a choice
    for each item, of which one is that the person did not answer it.
    """
    errors: dict[str, str] = {}
    survey: dict[str, list[int | None]] = {}
    patient_id = (form.get("patient_id") or "").strip()
    if not 0 < len(patient_id) <= 128:
        errors["patient_id"] = "Type the id that your clinic uses for the person"
    for instrument in (PHQ9, GAD7):
        chosen = [form.get(name_field(instrument, n)) for n in range(1, instrument.item_count + 1)]
        if not any(chosen):
            continue
        errors |= {
            name_field(instrument, n): f"{instrument.name} item {n}: choose an answer"
            for n, choice in enumerate(chosen, 1)
            if choice not in (*POINTS, NOT_ANSWERED)
        }
        survey[instrument.key] = [POINTS.get(choice or "") for choice in chosen]
    if not survey:
        errors["phq9_1"] = "Answer PHQ-9 or GAD-7, or both"
    return {"patient_id": patient_id, "survey_data": survey}, errors


def name_field(instrument: Instrument, number: int) -> str:
    return f"{instrument.key}_{number}"
