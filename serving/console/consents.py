"""The consent page of a person: what is allowed now, granting, narrowing, withdrawing, history."""

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from feature_repo.consent_terms import DATA_TYPES, PURPOSES
from feature_repo.pseudonyms import derive_key_id
from serving.consent.actions import record_consents, view_consents, withdraw_consents
from serving.consent.changes import Grant
from serving.console.access import ConsentManager
from serving.console.days import read_local_instant
from serving.console.forms import Form, SentForm
from serving.console.pages import redirect_to, render_page
from serving.console.persons import PERSONS, name_individual
from serving.dependencies import DbSession, Trail, WorkerServices
from serving.errors import UnusableError
from serving.http.parameters import AnonymizedId
from serving.services import Services

router = APIRouter(include_in_schema=False)

CONSENTS = PERSONS + "/{anonymized_id}/consents"
LAST_YEAR = 2200
TYPE_WORDS = {
    "survey": "Questionnaires (PHQ-9, GAD-7)",
    "wearable": "Wearable data (activity, sleep, heart rate)",
    "emr": "Care events (diagnoses, medication, visits)",
}
PURPOSE_WORDS = {
    "screening": "Screening: estimating this person's review priority",
    "training": "Training: improving the models",
}


@router.get(CONSENTS)
def show_consents(
    anonymized_id: AnonymizedId,
    request: Request,
    trail: Trail,
    session: DbSession,
    services: WorkerServices,
    _person: ConsentManager,
) -> Response:
    """Show what a person agrees to, and how it came about."""
    state = view_consents(session, trail, anonymized_id)
    values = describe_page(request, services, anonymized_id) | {"state": state}
    return render_page(request, "consents.html", values)


@router.post(CONSENTS)
def grant_consents(
    anonymized_id: AnonymizedId,
    request: Request,
    trail: Trail,
    session: DbSession,
    services: WorkerServices,
    person: ConsentManager,
    form: SentForm,
) -> Response:
    """Record what a person agrees to from now on; it replaces what was in force."""
    grant = read_grant(form, services)
    if isinstance(grant, dict):
        state = view_consents(session, trail, anonymized_id)
        values = describe_page(request, services, anonymized_id)
        values |= {"state": state, "errors": grant, "form": form}
        return render_page(request, "consents.html", values, 422)
    key_id = derive_key_id(services.settings.anonymization_salt.get_secret_value())
    user = person.principal.user_id
    record_consents(session, trail, anonymized_id, [grant], key_id, user)
    return redirect_to(f"{PERSONS}/{anonymized_id}/consents")


@router.post(CONSENTS + "/withdrawal")
def withdraw(
    anonymized_id: AnonymizedId,
    trail: Trail,
    session: DbSession,
    person: ConsentManager,
    form: SentForm,
) -> Response:
    """Withdraw everything, or one data type, or one purpose; it binds in every worker at once."""
    what = form.get("what")
    data_type = what if what in DATA_TYPES else None
    purpose = what if what in PURPOSES else None
    if what != "everything" and data_type is None and purpose is None:
        raise UnusableError("the form names nothing that can be withdrawn")
    user = person.principal.user_id
    withdraw_consents(session, trail, anonymized_id, data_type, purpose, user)
    return redirect_to(f"{PERSONS}/{anonymized_id}/consents")


def read_grant(form: Form, services: Services) -> Grant | dict[str, str]:
    """Return the grant of a form, or what is wrong with it, by field."""
    data_types = [data_type for data_type in form.list("data_types") if data_type in DATA_TYPES]
    purposes = [purpose for purpose in form.list("purposes") if purpose in PURPOSES]
    expires_at = read_local_instant(form.get("expires_on") or "", services.settings.zone)
    errors = {}
    if not data_types:
        errors["data_types"] = "Choose at least one kind of data"
    if not purposes:
        errors["purposes"] = "Choose at least one purpose"
    if expires_at is None:
        errors["expires_on"] = "Write the day until which the consent holds, as 2027-11-30"
    elif not datetime.now(UTC) < expires_at or expires_at.year >= LAST_YEAR:
        errors["expires_on"] = f"The day must lie in the future, before {LAST_YEAR}"
    if errors or expires_at is None:
        return errors
    return Grant(frozenset(data_types), frozenset(purposes), expires_at)


def describe_page(request: Request, services: Services, anonymized_id: str) -> dict[str, Any]:
    return {
        "type_words": {name: TYPE_WORDS[name] for name in DATA_TYPES},
        "purpose_words": {name: PURPOSE_WORDS[name] for name in PURPOSES},
        **name_individual(request, services, anonymized_id),
    }
