"""A person's own sessions: where they are signed in, and the end of any of them."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from serving import audit
from serving.audit.trail import SIGN_OUT
from serving.auth.browser_sessions import Limits, end_own_sessions, list_own_sessions
from serving.console.access import Anyone, name_cookie
from serving.console.forms import SentForm
from serving.console.pages import redirect_to, render_page
from serving.dependencies import DbSession, Trail, WorkerServices

router = APIRouter(include_in_schema=False)

SESSIONS = "/console/sessions"


@router.get(SESSIONS)
def show_sessions(
    request: Request, session: DbSession, services: WorkerServices, person: Anyone
) -> Response:
    """Show the live sessions of the person who asks, the present one marked."""
    secret = request.cookies[name_cookie(services.settings)]
    limits = Limits.read(services.settings)
    sessions = list_own_sessions(session, person.principal.user_id, secret, limits)
    return render_page(request, "sessions.html", {"sessions": sessions})


@router.post(f"{SESSIONS}/end")
def end_sessions(
    request: Request,
    session: DbSession,
    trail: Trail,
    services: WorkerServices,
    person: Anyone,
    form: SentForm,
) -> Response:
    """End one session of the person who asks, or all but the present one; audited."""
    secret = request.cookies[name_cookie(services.settings)]
    ended = end_own_sessions(session, person.principal.user_id, secret, form.get("session"))
    trail.record(audit.Event(SIGN_OUT, "end_sessions", details={"ended": ended}))
    return redirect_to(SESSIONS)
