"""Renders the console's pages: Jinja2 with the macros of nhsuk-frontend-jinja, no script at all."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import ChainableUndefined, ChoiceLoader, Environment, PackageLoader
from starlette.responses import RedirectResponse

from serving.auth.browser_sessions import SignedIn
from serving.console.words import FILTERS
from serving.roles import PERMISSIONS, Permission
from serving.screening.answers import INTENDED_USE
from serving.services import Services

#: Pages run no script, load what this host serves, and send forms to it alone.
PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
#: Not no-referrer: browsers would send forms with the origin "null".
PAGE_HEADERS = {"Content-Security-Policy": PAGE_POLICY, "Referrer-Policy": "same-origin"}


@dataclass(frozen=True)
class MenuItem:
    text: str
    href: str
    permission: Permission


MENU = (
    MenuItem("Queue", "/console/queue", Permission.ACCESS_REVIEW_QUEUE),
    MenuItem("Screen a person", "/console/screen", Permission.SCREEN),
    MenuItem("Find a person", "/console/individuals", Permission.MANAGE_CONSENTS),
    MenuItem("Models", "/console/models", Permission.VIEW_MODELS),
    MenuItem("Compliance report", "/console/compliance", Permission.READ_COMPLIANCE),
    MenuItem("Audit trail", "/console/audit", Permission.READ_AUDIT),
)


@lru_cache(maxsize=1)
def load_templates() -> Environment:
    environment = Environment(
        loader=ChoiceLoader(
            [PackageLoader("serving.console"), PackageLoader("nhsuk_frontend_jinja")]
        ),
        # Every value is escaped unless a template marks it; the macros rely on it too.
        autoescape=True,
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    return environment


def render_page(
    request: Request, template: str, values: Mapping[str, Any] | None = None, status: int = 200
) -> HTMLResponse:
    """Return a page; what every page shows comes from the request and the worker."""
    signed_in: SignedIn | None = getattr(request.state, "signed_in", None)
    shown = describe_frame(request, signed_in) | dict(values or {})
    page = load_templates().get_template(template).render(shown)
    return HTMLResponse(page, status_code=status, headers=PAGE_HEADERS)


def describe_frame(request: Request, signed_in: SignedIn | None) -> dict[str, Any]:
    services: Services = request.app.state.services
    return {
        "path": request.url.path,
        "menu": list_menu(signed_in),
        "user": signed_in.principal if signed_in else None,
        "form_token": signed_in.form_token if signed_in else "",
        "intended_use": INTENDED_USE,
        "is_simulated": holds_simulated_people(services),
        "zone": services.settings.zone,
    }


def list_menu(signed_in: SignedIn | None) -> list[MenuItem]:
    if signed_in is None:
        return []
    held = PERMISSIONS[signed_in.principal.role]
    return [item for item in MENU if item.permission in held]


def holds_simulated_people(services: Services) -> bool:
    """Return True if the settings say so, or the release in use was trained on such people."""
    release = services.screening.releases.current
    by_release = release is not None and bool(release.manifest.lineage.get("simulated"))
    return services.settings.simulated_data or by_release


def redirect_to(path: str) -> RedirectResponse:
    """Return the redirect after a form, so that a reload sends nothing again."""
    return RedirectResponse(path, status_code=303)
