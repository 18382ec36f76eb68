"""The models page: which releases answer, the latest changes, and the model card."""

from functools import partial

import structlog
from fastapi import APIRouter, Request
from markdown_it import MarkdownIt
from markupsafe import Markup
from starlette.responses import Response

from mlruns_config.pages import locate_run_alone, locate_version
from serving import audit
from serving.audit.trail import MODEL_VIEW
from serving.console.access import ModelReader
from serving.console.pages import render_page
from serving.dependencies import DbSession, Trail, WorkerServices
from serving.predictions.passport import Addresses
from serving.releases.registry import Registry, RegistryUnavailableError
from serving.releases.state import describe_models
from serving.services import Services

log = structlog.get_logger("serving.console")

router = APIRouter(include_in_schema=False)

CARD = "model_card.md"
#: The page has its own title: headings of the card begin two levels below.
HEADINGS_DOWN = 2
LOWEST_HEADING = 6


@router.get("/console/models")
def show_models(
    request: Request,
    trail: Trail,
    session: DbSession,
    services: WorkerServices,
    _person: ModelReader,
) -> Response:
    """Show the releases of this worker with the card of the one in Production."""
    trail.record(audit.Event(MODEL_VIEW, "view_models"))
    state = describe_models(session, services.screening.releases)
    card = read_card(services, state.production.trained_by) if state.production else None
    mlflow = Addresses.read(services.settings).mlflow
    values = {
        "state": state,
        "card": render_card(card) if card else None,
        "locate_version": partial(locate_version, host=mlflow),
        "locate_run": partial(locate_run_alone, host=mlflow),
    }
    return render_page(request, "models.html", values)


def read_card(services: Services, run_id: str) -> str | None:
    """Return the card that a training run logged; None while the registry does not give it."""
    settings = services.settings
    registry = Registry(settings.mlflow_tracking_uri, settings.mlflow_login)
    try:
        return registry.read_run_text(run_id, CARD)
    except RegistryUnavailableError as error:
        log.warning("model card not read", cause=str(error))
        return None
    finally:
        registry.close()


def render_card(card: str) -> Markup:
    """Return a card in Markdown as HTML that holds no markup of its own and loads nothing."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    tokens = markdown.parse(card)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            level = min(int(token.tag[1:]) + HEADINGS_DOWN, LOWEST_HEADING)
            token.tag = f"h{level}"
    return Markup(markdown.renderer.render(tokens, markdown.options, {}))
