"""GET /audit, /audit/verify and /audit/export: for those who check, not for those who act."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from serving.audit.reading import TrailFilter, record_access, stream_lines, view_rows
from serving.audit.verification import Verification, verify_trail
from serving.database.sessions import open_session
from serving.dependencies import AuditReader, DbSession, RequestTrail, Trail, WorkerServices
from serving.http.parameters import (
    Cursor,
    Page,
    PageSize,
    Since,
    Until,
    Word,
    place_in_zone,
    read_cursor,
    read_number,
    write_cursor,
)
from serving.http.problems import GUARDED, describe_problems

router = APIRouter(tags=["audit"])

NDJSON = "application/x-ndjson"

Individual = Annotated[str | None, Query(pattern="^[0-9a-f]{32}$")]
Result = Literal["success", "failure"]


class AuditEntry(BaseModel):
    """One row of the trail."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    id: int
    created_at: datetime
    event_type: str
    user_id: str
    user_role: str
    anonymized_id: str | None
    data_types: list[str]
    action: str
    result: str
    request_id: str | None
    details: dict[str, Any]


class AuditPage(Page):
    items: list[AuditEntry]


class FindingPart(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)

    kind: str
    position: int | None = Field(description="Place in the chain.")
    audit_id: int | None


class VerificationAnswer(BaseModel):
    """What a verification of the whole trail found; `findings` lists the first hundred."""

    intact: bool
    rows: int
    checkpoints: int
    head: str | None = Field(description="The last link, SHA-256.")
    newest_checkpoint: int | None
    finding_count: int
    findings: list[FindingPart]
    public_key: str = Field(description="Ed25519, base64: checkpoints are signed with it.")


@router.get("/audit", responses=describe_problems(*GUARDED))
def list_audit_rows(
    trail: Trail,
    _reader: AuditReader,
    session: DbSession,
    services: WorkerServices,
    event_type: Word = None,
    action: Annotated[str | None, Query(max_length=128, pattern=r"^[\x20-\x7e]+$")] = None,
    result: Result | None = None,
    user_id: Word = None,
    anonymized_id: Individual = None,
    since: Since = None,
    until: Until = None,
    limit: PageSize = 50,
    cursor: Cursor = None,
) -> AuditPage:
    """List rows of the trail, latest first."""
    zone = services.settings.zone
    period = place_in_zone(since, zone), place_in_zone(until, zone)
    wanted = TrailFilter(event_type, action, result, user_id, anonymized_id, *period)
    before = read_cursor(cursor, read_number)[0] if cursor else None
    shown, has_more = view_rows(session, trail, wanted, before, limit)
    more = write_cursor(shown[-1].id) if has_more else None
    return AuditPage(items=[AuditEntry.model_validate(row) for row in shown], next_cursor=more)


@router.get("/audit/verify", responses=describe_problems(*GUARDED))
def verify_audit_trail(
    trail: Trail, _reader: AuditReader, services: WorkerServices
) -> VerificationAnswer:
    """Verify every row against the chain and the chain against its signed checkpoints."""
    held = services.accountability
    verification = verify_trail(services.engine, held.checkpoints, held.keys)
    record_access(trail, "verify_audit_trail")
    return describe_verification(verification, held.signer.public_key)


@router.get(
    "/audit/export",
    response_class=StreamingResponse,
    responses={
        **describe_problems(*GUARDED),
        200: {"content": {NDJSON: {"schema": {"type": "string"}}}},
    },
)
def export_audit_trail(
    request: Request,
    _reader: AuditReader,
    services: WorkerServices,
    since: Since = None,
    until: Until = None,
) -> StreamingResponse:
    """Stream the trail, a JSON object a line with its link of the chain; the last line counts."""
    with open_session(services.engine) as session:
        record_access(RequestTrail(request, session), "export_audit_trail")
    zone = services.settings.zone
    period = TrailFilter(since=place_in_zone(since, zone), until=place_in_zone(until, zone))
    lines = stream_lines(services.engine, period)
    return StreamingResponse(lines, media_type=NDJSON)


def describe_verification(verification: Verification, public_key: str) -> VerificationAnswer:
    return VerificationAnswer(
        intact=verification.intact,
        rows=verification.rows,
        checkpoints=verification.checkpoints,
        head=verification.head,
        newest_checkpoint=verification.newest_checkpoint,
        finding_count=verification.finding_count,
        findings=[FindingPart.model_validate(finding) for finding in verification.findings],
        public_key=public_key,
    )
