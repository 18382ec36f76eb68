"""GET /compliance/report."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse, JSONResponse, Response

from serving.compliance.page import render_page
from serving.compliance.report import ComplianceReport, view_report
from serving.dependencies import ComplianceReader, DbSession, Trail, WorkerServices
from serving.http.parameters import Since, Until, place_in_zone
from serving.http.problems import GUARDED, describe_problems

router = APIRouter(tags=["audit"])

#: The page styles itself and loads nothing.
PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
)
USUAL_PERIOD = timedelta(days=30)


@router.get(
    "/compliance/report",
    response_model=ComplianceReport,
    responses={
        **describe_problems(*GUARDED),
        200: {"content": {"text/html": {"schema": {"type": "string"}}}},
    },
)
def get_compliance_report(
    trail: Trail,
    principal: ComplianceReader,
    session: DbSession,
    services: WorkerServices,
    since: Since = None,
    until: Until = None,
    form: Annotated[Literal["json", "html"], Query(alias="format")] = "json",
) -> Response:
    """Count a period's screenings, refusals, decisions, erasures; by default the last 30 days."""
    zone = services.settings.zone
    end = place_in_zone(until, zone) or datetime.now(UTC)
    begin = place_in_zone(since, zone) or end - USUAL_PERIOD
    report = view_report(session, trail, begin, end)
    if form == "html":
        return HTMLResponse(render_page(report), headers={"Content-Security-Policy": PAGE_POLICY})
    return JSONResponse(report.model_dump(mode="json"))
