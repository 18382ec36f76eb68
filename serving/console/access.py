"""Who opens a page or sends a form: the cookie, the origin, the form token, the permission.

The permissions are those of the API (`serving.roles`). Every refusal is audited.
Decision: infra/adr/0060-console-sign-in.md.
"""

import hmac
from typing import Annotated
from urllib.parse import urlsplit

import structlog
from fastapi import Depends, Request, Response

from serving.auth.browser_sessions import Limits, SignedIn, find_browser_session
from serving.console.forms import SentForm
from serving.dependencies import DbSession, WorkerServices
from serving.errors import (
    ProblemError,
    RefusedError,
    RoleRefusedError,
    UnauthenticatedError,
)
from serving.roles import PERMISSIONS, Permission
from serving.settings import Settings

#: Browsers accept the first from a secure address only, and tie it to this very host.
SECURE_COOKIE = "__Host-mhras"
#: Over plain http on loopback a browser may refuse a Secure cookie: development has its own.
DEVELOPMENT_COOKIE = "mhras-development"

FORM_TOKEN = "form_token"
READS = ("GET", "HEAD")


class ForeignOriginError(RefusedError):
    kind = "foreign-origin"
    title = "The form was not sent by a page of this console"


class ForgedFormError(RefusedError):
    kind = "forged-form"
    title = "The form does not belong to your session"


class ReloadNeededError(ProblemError):
    """A link from another site: the browser withheld the cookie, and sends it on a reload."""

    status = 200
    kind = "reload-needed"
    title = "Opening the page"


def name_cookie(settings: Settings) -> str:
    return DEVELOPMENT_COOKIE if settings.is_development else SECURE_COOKIE


def set_cookie(response: Response, name: str, value: str, settings: Settings) -> None:
    """Set a cookie that no script reads, no other site sends, and the browser's end removes."""
    response.set_cookie(
        name, value, secure=not settings.is_development, httponly=True, samesite="strict"
    )


def drop_cookie(response: Response, name: str, settings: Settings) -> None:
    response.delete_cookie(
        name, secure=not settings.is_development, httponly=True, samesite="strict"
    )


def has_own_origin(request: Request, settings: Settings) -> bool:
    """Return True if a form was sent by a page of this host, as the browser states it."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        return False
    origin = urlsplit(request.headers.get("Origin", ""))
    is_own_host = bool(origin.netloc) and origin.netloc == request.headers.get("Host")
    return is_own_host and (origin.scheme == "https" or settings.is_development)


def has_form_token(form: SentForm, signed_in: SignedIn) -> bool:
    sent = form.get(FORM_TOKEN) or ""
    return hmac.compare_digest(sent.encode(), signed_in.form_token.encode())


class PageAccess:
    """The dependency that lets only signed-in people with `permission` pass."""

    def __init__(self, permission: Permission) -> None:
        self._permission = permission

    def __call__(
        self, request: Request, session: DbSession, services: WorkerServices, form: SentForm
    ) -> SignedIn:
        signed_in = self._identify(request, session, services)
        principal = signed_in.principal
        request.state.principal, request.state.signed_in = principal, signed_in
        structlog.contextvars.bind_contextvars(user_id=principal.user_id)
        services.rates.admit(principal.user_id)
        if request.method not in READS:
            self._check_form(request, services, form, signed_in)
        if self._permission not in PERMISSIONS[principal.role]:
            raise RoleRefusedError(
                f"The role {principal.role} may not {self._permission}.",
                principal,
                self._permission,
            )
        return signed_in

    def _identify(self, request: Request, session: DbSession, services: WorkerServices) -> SignedIn:
        secret = request.cookies.get(name_cookie(services.settings))
        if secret is None:
            if request.method in READS and is_from_elsewhere(request):
                raise ReloadNeededError("the page opens in a moment")
            raise UnauthenticatedError("sign in to open this page")
        signed_in = find_browser_session(session, secret, Limits.read(services.settings))
        if signed_in is None:
            raise UnauthenticatedError("sign in to open this page")
        return signed_in

    def _check_form(
        self, request: Request, services: WorkerServices, form: SentForm, signed_in: SignedIn
    ) -> None:
        principal, action = signed_in.principal, str(self._permission)
        if not has_own_origin(request, services.settings):
            raise ForeignOriginError("Open the page again and send it there.", principal, action)
        if not has_form_token(form, signed_in):
            raise ForgedFormError("Open the page again and send it there.", principal, action)


def is_from_elsewhere(request: Request) -> bool:
    return request.headers.get("Sec-Fetch-Site") == "cross-site"


Anyone = Annotated[SignedIn, Depends(PageAccess(Permission.READ_SERVICE_INFO))]
QueueWorker = Annotated[SignedIn, Depends(PageAccess(Permission.ACCESS_REVIEW_QUEUE))]
Screener = Annotated[SignedIn, Depends(PageAccess(Permission.SCREEN))]
CrisisOverrider = Annotated[SignedIn, Depends(PageAccess(Permission.OVERRIDE_CRISIS))]
ConsentManager = Annotated[SignedIn, Depends(PageAccess(Permission.MANAGE_CONSENTS))]
PredictionReader = Annotated[SignedIn, Depends(PageAccess(Permission.VIEW_PREDICTIONS))]
PassportReader = Annotated[SignedIn, Depends(PageAccess(Permission.VIEW_PASSPORTS))]
ModelReader = Annotated[SignedIn, Depends(PageAccess(Permission.VIEW_MODELS))]
AuditReader = Annotated[SignedIn, Depends(PageAccess(Permission.READ_AUDIT))]
ComplianceReader = Annotated[SignedIn, Depends(PageAccess(Permission.READ_COMPLIANCE))]
AccessHistoryReader = Annotated[SignedIn, Depends(PageAccess(Permission.VIEW_ACCESS_HISTORY))]
Exporter = Annotated[SignedIn, Depends(PageAccess(Permission.EXPORT_INDIVIDUALS))]
Eraser = Annotated[SignedIn, Depends(PageAccess(Permission.ERASE_INDIVIDUALS))]
