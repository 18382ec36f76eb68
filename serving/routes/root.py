"""GET / and the intended-use statement that every answer links."""

from html import escape
from importlib.metadata import version

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from serving.dependencies import ServiceReader, WorkerServices
from serving.http.guidance import choose_guidance
from serving.http.problems import describe_problems
from serving.screening.answers import INTENDED_USE, INTENDED_USE_PATH

router = APIRouter(tags=["service"])

INTENDED_USE_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>MHRAS: intended use</title></head>
<body>
<h1>Intended use</h1>
<p>{intended_use}</p>
<p>MHRAS reads questionnaires, wearable data and care events of consenting individuals and
estimates the probability that symptoms get clinically significantly worse within 90 days. It
orders a review queue; a clinician decides. It has not been clinically validated.</p>
<p>The bands low, moderate, high and critical are review priorities, not levels of risk by which
treatment or discharge could be decided.</p>
<p>{guidance}</p>
</body></html>
"""


class ServiceInfo(BaseModel):
    service: str
    version: str
    environment: str
    release_version: int | None
    intended_use: str
    openapi: str


@router.get("/", responses=describe_problems(401))
def get_service_info(_reader: ServiceReader, services: WorkerServices) -> ServiceInfo:
    release = services.screening.releases.current
    return ServiceInfo(
        service="MHRAS",
        version=version("mhras"),
        environment=services.settings.env,
        release_version=release.version if release else None,
        intended_use=INTENDED_USE_PATH,
        openapi="/openapi.json",
    )


@router.get(INTENDED_USE_PATH, response_class=HTMLResponse)
def get_intended_use(services: WorkerServices) -> str:
    guidance = escape(choose_guidance(services.settings))
    return INTENDED_USE_PAGE.format(intended_use=INTENDED_USE, guidance=guidance)
