"""Signing in and out: by the identity provider, or in development by a local one-time link."""

import re
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from serving import audit
from serving.audit.trail import SIGN_IN, SIGN_OUT
from serving.auth.browser_sessions import Limits, end_browser_session, open_browser_session
from serving.auth.sign_in_tickets import SIGN_IN_PATH, redeem_link
from serving.console.access import (
    Anyone,
    drop_cookie,
    has_own_origin,
    name_cookie,
    set_cookie,
)
from serving.console.forms import SentForm
from serving.console.known_ids import KNOWN_IDS
from serving.console.pages import list_menu, redirect_to, render_page
from serving.dependencies import DbSession, Trail, WorkerServices
from serving.errors import Principal, UnauthenticatedError
from serving.http.problems import read_request_id
from serving.services import Services

router = APIRouter(include_in_schema=False)

HOME = "/console"
#: Where a sign-in may lead: pages of the console, nothing elsewhere.
OWN_PAGE = re.compile(r"/console(?:/[A-Za-z0-9_/-]*)?(?:\?[A-Za-z0-9_=&%.:+~-]*)?")

Link = Annotated[str | None, Query(max_length=100)]
Next = Annotated[str | None, Query(max_length=1000)]


@router.get(HOME)
def open_home(signed_in: Anyone) -> Response:
    """Show the first page of a role's menu."""
    return redirect_to(list_menu(signed_in)[0].href)


@router.get(SIGN_IN_PATH)
def show_sign_in(
    request: Request,
    services: WorkerServices,
    link: Link = None,
    destination: Annotated[Next, Query(alias="next")] = None,
) -> Response:
    """Offer the ways to sign in; opening a link's page does not use the link up."""
    settings = services.settings
    values = {
        "link": link if settings.is_development else None,
        "destination": choose_destination(destination),
        "is_development": settings.is_development,
        "provider": f"{SIGN_IN_PATH}/provider?next={quote(choose_destination(destination))}"
        if settings.oidc_issuer
        else None,
    }
    return render_page(request, "sign_in.html", values)


@router.post(SIGN_IN_PATH)
def sign_in_by_link(
    request: Request, session: DbSession, services: WorkerServices, form: SentForm
) -> Response:
    """Use a local link up and open a session; a link that was used before opens nothing."""
    if not has_own_origin(request, services.settings):
        raise UnauthenticatedError("the form was not sent by a page of this console")
    principal = redeem_link(session, services.settings, form.get("link") or "")
    if principal is None:
        raise UnauthenticatedError("this link was used before, is too old, or was never issued")
    response = redirect_to(choose_destination(form.get("next")))
    start_session(request, session, services, principal, "link", response)
    return response


@router.post("/console/sign-out")
def sign_out(
    request: Request, session: DbSession, trail: Trail, services: WorkerServices, _person: Anyone
) -> RedirectResponse:
    settings = services.settings
    end_browser_session(session, request.cookies[name_cookie(settings)])
    trail.record(audit.Event(SIGN_OUT, "sign_out"))
    response = redirect_to(SIGN_IN_PATH)
    for name in (name_cookie(settings), KNOWN_IDS):
        drop_cookie(response, name, settings)
    return response


def start_session(
    request: Request,
    session: DbSession,
    services: Services,
    principal: Principal,
    method: str,
    response: Response,
) -> None:
    """Open a session for a person who has proven who they are, audit it, and set the cookie."""
    settings = services.settings
    secret = open_browser_session(session, principal, Limits.read(settings))
    event = audit.Event(SIGN_IN, "sign_in", details={"method": method})
    audit.record(session, principal, read_request_id(request), event)
    set_cookie(response, name_cookie(settings), secret, settings)


def choose_destination(given: str | None) -> str:
    """Return the page to show after a sign-in: what was given, if it is a page of the console."""
    return given if given is not None and OWN_PAGE.fullmatch(given) else HOME
