"""Pages of the compliance reviewer: the quarterly report, the audit trail, a passport."""

from collections.abc import Mapping
from datetime import datetime
from itertools import groupby
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from feature_repo.pseudonyms import PSEUDONYM_PATTERN
from serving.audit.reading import TrailFilter, record_access, stream_lines, view_rows
from serving.compliance.report import ComplianceReport, view_report
from serving.compliance.rows import list_rows, write_csv
from serving.console.access import AuditReader, ComplianceReader, PassportReader
from serving.console.days import Days, find_quarter, list_quarters, read_day
from serving.console.known_ids import read_known_ids
from serving.console.pages import render_page
from serving.database.sessions import open_session
from serving.dependencies import DbSession, RequestTrail, Trail, WorkerServices
from serving.errors import UnusableError
from serving.http.individual import hash_identifier
from serving.http.parameters import read_cursor, read_number, write_cursor
from serving.predictions.passport import Addresses
from serving.predictions.passport_access import view_passport
from serving.reviews.queue import find_prediction
from serving.services import Services

router = APIRouter(include_in_schema=False)

COMPLIANCE = "/console/compliance"
AUDIT = "/console/audit"
ROWS_PER_PAGE = 50


@router.get(COMPLIANCE)
def show_report(
    request: Request,
    trail: Trail,
    session: DbSession,
    services: WorkerServices,
    _person: ComplianceReader,
) -> Response:
    """Show the report of a period; by default the quarter of today."""
    days = read_days(request.query_params, services)
    report = view_report(session, trail, *days.to_instants(services.settings.zone))
    today = datetime.now(services.settings.zone).date()
    values = {
        "days": days,
        "quarters": list_quarters(today),
        "sections": group_sections(report),
        "query": urlencode({"first": days.first, "last": days.last}),
        "made_at": datetime.now(services.settings.zone),
    }
    return render_page(request, "compliance.html", values)


@router.get(COMPLIANCE + "/report.csv")
def download_report(
    request: Request,
    trail: Trail,
    session: DbSession,
    services: WorkerServices,
    _person: ComplianceReader,
) -> Response:
    """Return the report of a period as CSV."""
    days = read_days(request.query_params, services)
    report = view_report(session, trail, *days.to_instants(services.settings.zone))
    name = f"mhras-compliance-{days.first}-{days.last}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(write_csv(report), media_type="text/csv", headers=headers)


def read_days(query: Mapping[str, str], services: Services) -> Days:
    """Return the period of an address; raises UnusableError for days that are none."""
    quarter = find_quarter(datetime.now(services.settings.zone).date())
    days = {
        name: read_day(query[name]) if query.get(name) else getattr(quarter, name)
        for name in ("first", "last")
    }
    if days["first"] is None or days["last"] is None:
        raise UnusableError("write a day as 2026-01-31")
    if days["first"] > days["last"]:
        raise UnusableError("the first day must not lie after the last")
    return Days(days["first"], days["last"])


def group_sections(report: ComplianceReport) -> list[tuple[str, list[Any]]]:
    rows = list_rows(report)
    return [(name, list(members)) for name, members in groupby(rows, lambda row: row.section)]


@router.get(AUDIT)
def search_audit(
    request: Request,
    trail: Trail,
    session: DbSession,
    services: WorkerServices,
    _person: AuditReader,
) -> Response:
    """Show rows of the audit trail that match what was searched for, latest first."""
    query = request.query_params
    wanted = read_filter(query, services)
    cursor = query.get("cursor")
    before = read_cursor(cursor, read_number)[0] if cursor else None
    rows, has_more = view_rows(session, trail, wanted, before, ROWS_PER_PAGE)
    kept = {name: value for name, value in query.items() if value and name != "cursor"}
    more = {**kept, "cursor": write_cursor(rows[-1].id)} if has_more else None
    values = {
        "rows": rows,
        "sought": kept,
        "next": f"{AUDIT}?{urlencode(more)}" if more else None,
        "known_ids": read_known_ids(request, services.settings),
    }
    return render_page(request, "audit.html", values)


@router.get(AUDIT + "/verification")
def show_verification(
    request: Request,
    trail: Trail,
    services: WorkerServices,
    person: AuditReader,
    job: UUID | None = None,
) -> Response:
    """Verify every row against the chain and the chain against its signed checkpoints.

    Of a long trail the page says that the verification runs, with a link to its result.
    """
    held = services.accountability
    record_access(trail, "verify_audit_trail")
    started = job or held.verifications.start(person.principal.user_id)
    verification = held.verifications.wait(started)
    values = {
        "job": verification,
        "last": None if verification.result else held.verifications.find_last(),
        "public_key": held.signer.public_key,
    }
    return render_page(request, "verification.html", values)


@router.get(AUDIT + "/export")
def export_audit(request: Request, services: WorkerServices, _person: AuditReader) -> Response:
    """Stream the trail with its chain, a JSON object a line."""
    with open_session(services.engine) as session:
        record_access(RequestTrail(request, session), "export_audit_trail")
    lines = stream_lines(services.engine, read_filter(request.query_params, services))
    headers = {"Content-Disposition": 'attachment; filename="mhras-audit.ndjson"'}
    return StreamingResponse(lines, media_type="application/x-ndjson", headers=headers)


def read_filter(query: Mapping[str, str], services: Services) -> TrailFilter:
    """Return the filter of a search form; a person is named by pseudonym or by own id.

    Raises UnusableError for a day that cannot be read.
    """
    settings = services.settings
    since, until = read_day(query.get("first")), read_day(query.get("last"))
    for name, day in (("first", since), ("last", until)):
        if query.get(name) and day is None:
            raise UnusableError("write a day as 2026-01-31")
    individual = query.get("individual", "").strip()
    if individual and not PSEUDONYM_PATTERN.fullmatch(individual):
        individual = hash_identifier(individual, settings)
    names = ("event_type", "action", "result", "user_id")
    text = {name: query.get(name, "").strip()[:128] or None for name in names}
    return TrailFilter(
        **text,
        anonymized_id=individual or None,
        since=Days(since, since).to_instants(settings.zone)[0] if since else None,
        until=Days(until, until).to_instants(settings.zone)[1] if until else None,
    )


@router.get("/console/predictions/{prediction_id}/passport")
def show_passport(
    prediction_id: UUID,
    request: Request,
    trail: Trail,
    session: DbSession,
    services: WorkerServices,
    person: PassportReader,
) -> Response:
    """Show everything that led to a prediction, and its outcome."""
    prediction = find_prediction(session, prediction_id)
    addresses = Addresses.read(services.settings)
    role = person.principal.role
    passport = view_passport(session, trail, prediction, services.manifests, addresses, role)
    known_ids = read_known_ids(request, services.settings)
    values = {"passport": passport, "own_id": known_ids.get(passport.anonymized_id)}
    return render_page(request, "passport.html", values)
