"""Problems as pages: what the API answers as RFC 9457 is a page in the console, or a sign-in."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from fastapi import Request
from starlette.responses import Response

from serving.auth.sign_in_tickets import SIGN_IN_PATH
from serving.console.access import READS
from serving.console.known_ids import remember_id
from serving.console.pages import redirect_to, render_page
from serving.console.persons import PERSONS
from serving.http.problems import Problem

CHALLENGE = "WWW-Authenticate"
CONSENT_MISSING = "urn:mhras:problem:consent-missing"
RELOAD = "urn:mhras:problem:reload-needed"


def render_problem(request: Request, problem: Problem, headers: Mapping[str, str]) -> Response:
    """Return the page of a problem; a person who is not signed in is sent to do so."""
    if problem.type == RELOAD:
        address = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return render_page(request, "reload.html", {"address": address})
    if problem.status == 401 and request.method in READS and not is_sign_in(request):
        return redirect_to(f"{SIGN_IN_PATH}?next={quote(name_target(request))}")
    values: dict[str, Any] = {"problem": problem}
    values |= {"sign_in": SIGN_IN_PATH if problem.status == 401 else None}
    typed = getattr(request.state, "typed_id", None)
    if problem.type == CONSENT_MISSING and typed is not None:
        values["consents"] = f"{PERSONS}/{typed[0]}/consents"
    page = render_page(request, "problem.html", values, problem.status)
    if typed is not None:
        remember_id(request, page, typed[0], typed[1], request.app.state.services.settings)
    page.headers.update(
        {name: value for name, value in headers.items() if name != "WWW-Authenticate"}
    )
    return page


def is_sign_in(request: Request) -> bool:
    return request.url.path.startswith(SIGN_IN_PATH)


def name_target(request: Request) -> str:
    query = f"?{request.url.query}" if request.url.query else ""
    return f"{request.url.path}{query}"
