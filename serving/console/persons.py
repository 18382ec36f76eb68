"""From a clinic's own id to a person's page: predictions, consent, access history, erasure."""

import json
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from serving.console.access import (
    AccessHistoryReader,
    Anyone,
    ConsentManager,
    Eraser,
    Exporter,
)
from serving.console.cases import may
from serving.console.forms import FieldErrors, SentForm, validate_form
from serving.console.known_ids import read_known_ids, remember_id
from serving.console.pages import redirect_to, render_page
from serving.dependencies import DbSession, Trail, WorkerServices
from serving.fhir.export import make_bundle
from serving.http.individual import IndividualBody, resolve_individual
from serving.http.parameters import (
    AnonymizedId,
    read_cursor,
    read_instant,
    read_number,
    write_cursor,
)
from serving.individuals import actions
from serving.individuals.rights import describe_export
from serving.reviews.queue import list_of_individual
from serving.roles import Permission

router = APIRouter(include_in_schema=False)

PERSONS = "/console/individuals"
ROWS_PER_PAGE = 20
#: What a person who erases types, so that no slip of the mouse erases anyone.
CONFIRMATION = "erase"
Cursor = Annotated[str | None, Query(max_length=256)]


@router.get(PERSONS)
def show_search(request: Request, services: WorkerServices, _person: ConsentManager) -> Response:
    """Show the form that finds a person by the clinic's own id, and who was found lately."""
    known_ids = read_known_ids(request, services.settings)
    return render_page(request, "find_person.html", {"known_ids": known_ids})


@router.post(PERSONS)
def find_person(
    request: Request,
    trail: Trail,
    services: WorkerServices,
    form: SentForm,
    _person: ConsentManager,
) -> Response:
    """Hash the id, keep it in this browser alone, and lead to the person's page."""
    body = validate_form(IndividualBody, {"patient_id": form.get("patient_id") or ""})
    if isinstance(body, FieldErrors):
        errors = {"patient_id": "Type the id that your clinic uses for the person"}
        known_ids = read_known_ids(request, services.settings)
        values = {"errors": errors, "form": form, "known_ids": known_ids}
        return render_page(request, "find_person.html", values, 422)
    anonymized_id = resolve_individual(body, services.settings)
    actions.record_lookup(trail, anonymized_id)
    response = redirect_to(f"{PERSONS}/{anonymized_id}")
    remember_id(request, response, anonymized_id, str(body.patient_id), services.settings)
    return response


@router.get(PERSONS + "/{anonymized_id}")
def show_person(
    anonymized_id: AnonymizedId,
    request: Request,
    trail: Trail,
    session: DbSession,
    services: WorkerServices,
    _person: Anyone,
    cursor: Cursor = None,
) -> Response:
    """Show what the caller's role may see about a person."""
    values: dict[str, Any] = describe_rights(request)
    if values["may_see_predictions"]:
        before = read_cursor(cursor, read_instant, UUID) if cursor else None
        listed = actions.view_predictions(session, trail, anonymized_id, before, ROWS_PER_PAGE)
        last = listed.predictions[-1] if listed.has_more else None
        values["predictions"] = listed.predictions
        values["overridden"] = listed.overridden
        values["next"] = write_cursor(last.created_at, last.id) if last else None
    if values["may_review"]:
        values["reviews"] = list_of_individual(session, anonymized_id)
    values |= name_individual(request, services, anonymized_id)
    return render_page(request, "person.html", values)


@router.get(PERSONS + "/{anonymized_id}/access-history")
def show_access_history(
    anonymized_id: AnonymizedId,
    request: Request,
    trail: Trail,
    session: DbSession,
    services: WorkerServices,
    _person: AccessHistoryReader,
    cursor: Cursor = None,
) -> Response:
    """Show who saw or changed what about a person."""
    before = read_cursor(cursor, read_number)[0] if cursor else None
    rows, has_more = actions.view_accesses(session, trail, anonymized_id, before, 50)
    values = {"rows": rows, "next": write_cursor(rows[-1].id) if has_more else None}
    values |= name_individual(request, services, anonymized_id)
    return render_page(request, "access_history.html", values)


@router.get(PERSONS + "/{anonymized_id}/export")
def export_person(
    anonymized_id: AnonymizedId,
    trail: Trail,
    session: DbSession,
    _person: Exporter,
    form: Annotated[Literal["json", "fhir"], Query(alias="format")] = "json",
) -> Response:
    """Hand out everything held about a person as a file."""
    held = actions.export(session, trail, anonymized_id, form)
    content: Any = describe_export(anonymized_id, held)
    if form == "fhir":
        content = make_bundle(anonymized_id, held, datetime.now(UTC))
    name = f"mhras-{anonymized_id[:8]}.{form}.json"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    text = json.dumps(content, indent=2, default=str)
    return Response(text, media_type="application/json", headers=headers)


@router.get(PERSONS + "/{anonymized_id}/erasure")
def show_erasure(
    anonymized_id: AnonymizedId,
    request: Request,
    trail: Trail,
    session: DbSession,
    services: WorkerServices,
    _person: AccessHistoryReader,
) -> Response:
    """Show the erasures of a person with their receipts; the form for one, where it is allowed."""
    values = {
        "erasures": actions.view_erasures(session, trail, anonymized_id),
        "may_erase": may(request, Permission.ERASE_INDIVIDUALS),
        "public_key": services.accountability.signer.public_key,
    }
    values |= name_individual(request, services, anonymized_id)
    return render_page(request, "erasure.html", values)


@router.post(PERSONS + "/{anonymized_id}/erasure")
def erase_person(
    anonymized_id: AnonymizedId,
    request: Request,
    trail: Trail,
    session: DbSession,
    services: WorkerServices,
    person: Eraser,
    form: SentForm,
) -> Response:
    """Erase a person here at once; the page then shows the receipt."""
    if (form.get("confirmation") or "").strip().lower() != CONFIRMATION:
        values = {
            "errors": {"confirmation": f"Type the word {CONFIRMATION} to erase this person"},
            "erasures": actions.view_erasures(session, trail, anonymized_id),
            "may_erase": True,
        }
        values |= name_individual(request, services, anonymized_id)
        return render_page(request, "erasure.html", values, 422)
    signer = services.accountability.signer
    actions.erase(session, trail, anonymized_id, person.principal.user_id, signer)
    return redirect_to(f"{PERSONS}/{anonymized_id}/erasure")


def describe_rights(request: Request) -> dict[str, bool]:
    return {
        "may_see_predictions": may(request, Permission.VIEW_PREDICTIONS),
        "may_review": may(request, Permission.ACCESS_REVIEW_QUEUE),
        "may_manage_consents": may(request, Permission.MANAGE_CONSENTS),
        "may_screen": may(request, Permission.SCREEN),
        "may_see_accesses": may(request, Permission.VIEW_ACCESS_HISTORY),
        "may_export": may(request, Permission.EXPORT_INDIVIDUALS),
    }


def name_individual(
    request: Request, services: WorkerServices, anonymized_id: str
) -> dict[str, Any]:
    own_id = read_known_ids(request, services.settings).get(anonymized_id)
    return {"anonymized_id": anonymized_id, "own_id": own_id}
