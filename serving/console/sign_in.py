"""Signing in and out: by the identity provider, or in development by a local one-time link."""

import hmac
import re
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import RedirectResponse, Response

from serving import audit
from serving.audit.trail import SIGN_IN, SIGN_OUT
from serving.auth.browser_sessions import (
    Limits,
    end_browser_session,
    open_browser_session,
    revoke_browser_sessions,
)
from serving.auth.openid import CALLBACK_PATH, OpenIdProvider
from serving.auth.sign_in_tickets import (
    SIGN_IN_PATH,
    VISIT_LIVES,
    begin_visit,
    end_visit,
    redeem_link,
)
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
from serving.database.sessions import open_session
from serving.dependencies import DbSession, Trail, WorkerServices
from serving.errors import FlowActor, NotFoundError, Principal, UnauthenticatedError
from serving.http.problems import read_request_id
from serving.services import Services
from serving.settings import Settings

router = APIRouter(include_in_schema=False)

HOME = "/console"
#: Who acts where the provider calls by itself.
PROVIDER = FlowActor("identity-provider", "identity-provider")
#: Where a sign-in may lead: pages of the console, nothing elsewhere.
OWN_PAGE = re.compile(r"/console(?:/[A-Za-z0-9_/-]*)?(?:\?[A-Za-z0-9_=&%.:+~-]*)?")


class ProviderAnswer(BaseModel):
    """What the provider's redirect carries back; one that failed carries an error instead."""

    state: Annotated[str | None, Field(max_length=200)] = None
    code: Annotated[str | None, Field(max_length=4000)] = None
    iss: Annotated[str | None, Field(max_length=1000)] = None


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


@router.get(f"{SIGN_IN_PATH}/provider")
def visit_provider(
    session: DbSession,
    services: WorkerServices,
    destination: Annotated[Next, Query(alias="next")] = None,
) -> Response:
    """Send a person to the identity provider; the browser keeps the state until they return."""
    provider = require_provider(services)
    state, visit = begin_visit(session, choose_destination(destination))
    response = redirect_to(provider.make_address(state, visit))
    set_visit_cookie(response, state, services.settings)
    return response


@router.get(CALLBACK_PATH)
def return_from_provider(
    request: Request,
    session: DbSession,
    services: WorkerServices,
    answer: Annotated[ProviderAnswer, Query()],
) -> Response:
    """Open a session for who comes back with a code that the provider gave for this browser.

    The page that follows opens itself: the new cookie is not sent along a redirect that began on
    the provider's site.
    """
    provider = require_provider(services)
    kept = request.cookies.get(name_visit_cookie(services.settings), "")
    if answer.state is None or not hmac.compare_digest(kept.encode(), answer.state.encode()):
        raise UnauthenticatedError("this answer belongs to another browser")
    # By itself: a visit that fails is over too.
    with open_session(services.engine) as own:
        visit = end_visit(own, answer.state)
    if visit is None:
        raise UnauthenticatedError("this sign-in was used before, or took too long")
    if answer.code is None or not provider.is_issuer(answer.iss):
        raise UnauthenticatedError("the identity provider did not sign you in")
    principal = provider.identify(answer.code, visit)
    response = render_page(request, "reload.html", {"address": visit.destination})
    start_session(request, session, services, principal, "openid", response)
    response.delete_cookie(name_visit_cookie(services.settings), httponly=True, samesite="lax")
    return response


def require_provider(services: Services) -> OpenIdProvider:
    """Return the OpenID Connect provider; raises NotFoundError without one."""
    provider = services.accountability.provider
    if provider is None:
        raise NotFoundError("no identity provider is set here")
    return provider


def name_visit_cookie(settings: Settings) -> str:
    return f"{name_cookie(settings)}-visit"


def set_visit_cookie(response: Response, state: str, settings: Settings) -> None:
    """Keep the state in the browser; lax, for the provider's redirect has to send it back."""
    response.set_cookie(
        name_visit_cookie(settings),
        state,
        max_age=int(VISIT_LIVES.total_seconds()),
        secure=not settings.is_development,
        httponly=True,
        samesite="lax",
    )


@router.post("/console/backchannel-logout")
def end_sessions_of_the_signed_out(
    request: Request, session: DbSession, services: WorkerServices, form: SentForm
) -> Response:
    """End a person's sessions here once the identity provider has signed them out.

    The provider calls it, not a browser: OpenID Connect Back-Channel Logout 1.0.
    """
    token = form.get("logout_token") or ""
    user_id = require_provider(services).identify_signed_out(token)
    ended = revoke_browser_sessions(session, user_id)
    details = {"user_id": user_id, "sessions": ended}
    event = audit.Event(SIGN_OUT, "provider_sign_out", details=details)
    audit.record(session, PROVIDER, read_request_id(request), event)
    return Response(status_code=200)


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
    """Open a session for a person who has proven who they are, audit it, and set the cookie.

    The session that this browser had before ends.
    """
    settings = services.settings
    earlier = request.cookies.get(name_cookie(settings))
    if earlier is not None:
        end_browser_session(session, earlier)
    secret = open_browser_session(session, principal, Limits.read(settings))
    event = audit.Event(SIGN_IN, "sign_in", details={"method": method})
    audit.record(session, principal, read_request_id(request), event)
    set_cookie(response, name_cookie(settings), secret, settings)


def choose_destination(given: str | None) -> str:
    """Return the page to show after a sign-in: what was given, if it is a page of the console."""
    return given if given is not None and OWN_PAGE.fullmatch(given) else HOME
