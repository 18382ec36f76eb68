"""GET /compliance/report."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse, JSONResponse, Response

from serving import audit
from serving.audit.trail import COMPLIANCE_ACCESS
from serving.compliance.page import render_page
from serving.compliance.report import ComplianceReport, make_report
from serving.dependencies import ComplianceReader, DbSession, Trail
from serving.errors import UnusableError
from serving.http.parameters import Since, Until
from serving.http.problems import GUARDED, describe_problems

router = APIRouter(tags=["audit"])

#: The page styles itself and loads nothing.
PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
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
    since: Since = None,
    until: Until = None,
    form: Annotated[Literal["json", "html"], Query(alias="format")] = "json",
) -> Response:
    """Count a period's screenings, refusals, decisions, erasures; by default the last 30 days."""
    end = until or datetime.now(UTC)
    begin = since or end - USUAL_PERIOD
    if begin >= end:
        raise UnusableError("since must lie before until")
    report = make_report(session, begin, end)
    event = audit.Event(COMPLIANCE_ACCESS, "view_compliance_report", data_types=["audit"])
    trail.record(event)
    if form == "html":
        return HTMLResponse(render_page(report), headers={"Content-Security-Policy": PAGE_POLICY})
    return JSONResponse(report.model_dump(mode="json"))
