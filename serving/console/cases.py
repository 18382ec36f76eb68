"""The page of one case, and what a clinician does there: each action leads back to the page."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from sqlalchemy.orm import Session
from starlette.responses import Response

from serving.auth.browser_sessions import SignedIn
from serving.console.access import CrisisOverrider, PredictionReader, QueueWorker
from serving.console.case_view import COURSE_LENGTH, draw_chart, list_answered, make_course
from serving.console.contact_terms import CHANNELS, OUTCOMES
from serving.console.days import read_local_instant
from serving.console.forms import FieldErrors, Form, SentForm, validate_form
from serving.console.known_ids import read_known_ids
from serving.console.pages import redirect_to, render_page
from serving.console.words import REASON_CODES
from serving.database.review_terms import OverrideReason
from serving.database.tables import Prediction, ReviewItem
from serving.dependencies import DbSession, Trail, WorkerServices
from serving.http.guidance import choose_guidance
from serving.individuals.rights import list_predictions
from serving.predictions.viewing import record_viewing
from serving.reviews import actions
from serving.reviews.answers import ContactBody, DecisionBody, NoteBody, OverrideBody
from serving.reviews.contacts import list_contacts
from serving.reviews.crisis_overrides import find_override
from serving.reviews.queue import (
    PRIORITIES,
    find_item,
    find_prediction,
    list_events,
    list_of_individual,
)
from serving.roles import PERMISSIONS, Permission
from serving.services import Services

router = APIRouter(include_in_schema=False)

CASE = "/console/cases"
PREDICTION = "/console/predictions"


@router.get(CASE + "/{review_id}")
def show_case(
    review_id: UUID,
    request: Request,
    trail: Trail,
    session: DbSession,
    services: WorkerServices,
    signed_in: QueueWorker,
) -> Response:
    """Show a review item with all that a decision needs."""
    item = actions.view_item(session, trail, review_id)
    return render_case(request, session, services, signed_in, item)


@router.get(PREDICTION + "/{prediction_id}")
def show_prediction(
    prediction_id: UUID,
    request: Request,
    trail: Trail,
    session: DbSession,
    services: WorkerServices,
    signed_in: PredictionReader,
) -> Response:
    """Show a screening, queued or not; the newest review item of it for who works the queue."""
    prediction = find_prediction(session, prediction_id)
    record_viewing(trail, prediction, "view_prediction")
    values = describe_case(request, session, services, prediction, None)
    return render_page(request, "case.html", values)


@router.post(CASE + "/{review_id}/claim")
def claim_case(
    review_id: UUID, trail: Trail, session: DbSession, signed_in: QueueWorker
) -> Response:
    actions.claim(session, trail, review_id, signed_in.principal)
    return redirect_to(f"{CASE}/{review_id}")


@router.post(CASE + "/{review_id}/release")
def release_case(
    review_id: UUID, trail: Trail, session: DbSession, signed_in: QueueWorker
) -> Response:
    actions.release(session, trail, review_id, signed_in.principal)
    return redirect_to(f"{CASE}/{review_id}")


@router.post(CASE + "/{review_id}/notes")
def note_case(
    review_id: UUID,
    request: Request,
    trail: Trail,
    session: DbSession,
    services: WorkerServices,
    signed_in: QueueWorker,
    form: SentForm,
) -> Response:
    body = validate_form(NoteBody, form.pick("note"))
    if isinstance(body, FieldErrors):
        return show_again(request, session, services, signed_in, review_id, form, body)
    actions.add_note(session, trail, review_id, signed_in.principal, body.note)
    return redirect_to(f"{CASE}/{review_id}#history")


@router.post(CASE + "/{review_id}/contacts")
def record_contact(
    review_id: UUID,
    request: Request,
    trail: Trail,
    session: DbSession,
    services: WorkerServices,
    signed_in: QueueWorker,
    form: SentForm,
) -> Response:
    body = read_contact(form, services)
    if isinstance(body, FieldErrors):
        return show_again(request, session, services, signed_in, review_id, form, body)
    actions.add_contact(session, trail, review_id, signed_in.principal, body.to_contact())
    return redirect_to(f"{CASE}/{review_id}#contacts")


@router.post(CASE + "/{review_id}/decision")
def decide_case(
    review_id: UUID,
    request: Request,
    trail: Trail,
    session: DbSession,
    services: WorkerServices,
    signed_in: QueueWorker,
    form: SentForm,
) -> Response:
    body = read_decision(form)
    if isinstance(body, FieldErrors):
        return show_again(request, session, services, signed_in, review_id, form, body)
    actions.decide(session, trail, review_id, signed_in.principal, body.to_decision())
    return redirect_to(f"{CASE}/{review_id}#standing")


@router.post(PREDICTION + "/{prediction_id}/crisis")
def raise_crisis(
    prediction_id: UUID,
    request: Request,
    trail: Trail,
    session: DbSession,
    services: WorkerServices,
    signed_in: CrisisOverrider,
    form: SentForm,
) -> Response:
    """Put a screening into the top band by a clinician's override."""
    prediction = find_prediction(session, prediction_id)
    body = validate_form(OverrideBody, {"comment": form.get("crisis_comment")})
    if isinstance(body, FieldErrors):
        errors = {"crisis_comment": "Say in a sentence what makes this a crisis"}
        values = describe_case(request, session, services, prediction, None)
        return render_page(request, "case.html", values | {"errors": errors, "form": form}, 422)
    enabled = services.settings.enable_crisis_override
    principal = signed_in.principal
    made = actions.override_crisis(session, trail, prediction, principal, body.comment, enabled)
    return redirect_to(f"{CASE}/{made.review_id}")


def read_decision(form: Form) -> DecisionBody | FieldErrors:
    """Return the decision of a form; fields of an override count only where one is made."""
    values = form.pick("decision", "comment")
    if values.get("decision") == "override":
        values |= form.pick("new_band", "reason_code")
    body = validate_form(DecisionBody, values)
    if not isinstance(body, FieldErrors):
        return body
    return FieldErrors(explain_decision(values) or body.messages)


def explain_decision(values: Mapping[str, Any]) -> dict[str, str]:
    """Return what a decision lacks, by field."""
    decision = values.get("decision")
    if decision is None:
        return {"decision": "Choose agree, set another priority, or refer"}
    needed = {
        "override": {
            "new_band": "Choose the priority that you find right",
            "reason_code": "Choose why the priority is another",
            "comment": "Explain the other priority in a sentence",
        },
        "refer": {"comment": "Name the service you refer to, and the reason"},
    }
    return {name: text for name, text in needed.get(decision, {}).items() if name not in values}


def read_contact(form: Form, services: Services) -> ContactBody | FieldErrors:
    values = form.pick("channel", "outcome")
    if (note := form.get("contact_note")) is not None:
        values["note"] = note
    errors = {
        name: text
        for name, text in (
            ("channel", "Choose how you tried to reach the person"),
            ("outcome", "Choose how it went"),
        )
        if name not in values
    }
    if (planned := form.get("next_contact")) is not None:
        moment = read_local_instant(planned, services.settings.zone)
        if moment is None:
            errors["next_contact"] = "Write date and time as 2026-11-30 09:30"
        else:
            values["next_contact_at"] = moment
    if errors:
        return FieldErrors(errors)
    body = validate_form(ContactBody, values)
    if isinstance(body, FieldErrors) and "note" in body.messages:
        return FieldErrors({"contact_note": body.messages["note"]})
    return body


def show_again(
    request: Request,
    session: Session,
    services: Services,
    signed_in: SignedIn,
    review_id: UUID,
    form: Form,
    errors: FieldErrors,
) -> Response:
    """Show the case again with what is wrong beside the fields, and what was typed in them."""
    item = find_item(session, review_id)
    given = {"errors": dict(errors.messages), "form": form}
    return render_case(request, session, services, signed_in, item, given, status=422)


def render_case(
    request: Request,
    session: Session,
    services: Services,
    signed_in: SignedIn,
    item: ReviewItem,
    given: Mapping[str, Any] | None = None,
    status: int = 200,
) -> Response:
    prediction = session.get(Prediction, item.prediction_id)
    values = describe_case(request, session, services, prediction, item)
    owned = item.claimed_by == signed_in.principal.user_id
    shown = {"is_mine": owned, **(given or {})}
    return render_page(request, "case.html", values | shown, status)


def describe_case(
    request: Request,
    session: Session,
    services: Services,
    prediction: Prediction | None,
    item: ReviewItem | None,
) -> dict[str, Any]:
    """Return what the page shows: of the screening, of the item, and of the person's past."""
    person = prediction.anonymized_id if prediction else (item.anonymized_id if item else "")
    reviews = list_of_individual(session, person)
    past = list_predictions(session, person, None, COURSE_LENGTH)
    course = make_course(past)
    shows_answers = prediction is not None and may(request, Permission.VIEW_ANSWERS)
    return {
        "item": item,
        "review": item
        or next(
            (review for review in reviews if prediction and review.prediction_id == prediction.id),
            None,
        ),
        "prediction": prediction,
        "answer": prediction.answer if prediction else {},
        "override": find_override(session, prediction.id) if prediction else None,
        "questionnaires": list_answered(prediction) if prediction and shows_answers else [],
        "shows_answers": shows_answers,
        "course": course,
        "chart": draw_chart(course),
        "reviews": reviews,
        "events": list_events(session, item.id) if item else [],
        "contacts": list_contacts(session, item.id) if item else [],
        "anonymized_id": person,
        "own_id": read_known_ids(request, services.settings).get(person),
        "guidance": choose_guidance(services.settings),
        "bands": {band: band.capitalize() for band in PRIORITIES},
        "reason_codes": {code.value: REASON_CODES[code] for code in OverrideReason},
        "channels": CHANNELS,
        "outcomes": OUTCOMES,
        "may_override": may(request, Permission.OVERRIDE_CRISIS),
        "may_see_passport": may(request, Permission.VIEW_PASSPORTS),
        "may_work": may(request, Permission.ACCESS_REVIEW_QUEUE),
    }


def find_review(reviews: Sequence[ReviewItem], prediction: Prediction | None) -> ReviewItem | None:
    """Return the newest review item of a screening."""
    wanted = prediction.id if prediction else None
    return next((review for review in reviews if review.prediction_id == wanted), None)


def may(request: Request, permission: Permission) -> bool:
    signed_in: SignedIn = request.state.signed_in
    return permission in PERMISSIONS[signed_in.principal.role]
