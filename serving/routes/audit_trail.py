"""GET /audit, /audit/verify and /audit/export: for those who check, not for those who act."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from serving.accountability import Accountability
from serving.audit.jobs import VerificationJob
from serving.audit.reading import (
    ReadableInstant,
    ReadableObject,
    ReadableTexts,
    TrailFilter,
    record_access,
    stream_lines,
    view_rows,
)
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
    created_at: ReadableInstant
    event_type: str
    user_id: str
    user_role: str
    anonymized_id: str | None
    data_types: ReadableTexts
    action: str
    result: str
    request_id: str | None
    details: ReadableObject
    unreadable: list[str] = Field(
        description="Fields that hold what no row of the trail holds, such as a year 12000: null "
        "here, as text in the export."
    )


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
    started_at: datetime
    finished_at: datetime


class VerificationUnderWay(BaseModel):
    """A verification that has not finished; `last` is the newest that has."""

    job_id: UUID
    started_at: datetime
    last: VerificationAnswer | None


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


UNDER_WAY: dict[int | str, dict[str, Any]] = {
    202: {"model": VerificationUnderWay, "description": "Not finished yet: `Location` has it."}
}


@router.get(
    "/audit/verify",
    responses=UNDER_WAY | describe_problems(*GUARDED, 409),
    response_model=VerificationAnswer,
)
def verify_audit_trail(trail: Trail, reader: AuditReader, services: WorkerServices) -> Any:
    """Verify every row against the chain and the chain against its signed checkpoints.

    A long trail takes minutes: after five seconds the response is 202 with the address of the
    result. One verification runs at a time; a second request joins it.
    """
    record_access(trail, "verify_audit_trail")
    jobs = services.accountability.verifications
    return answer_job(jobs.wait(jobs.start(reader.user_id)), services.accountability)


@router.get(
    "/audit/verify/{job_id}",
    responses=UNDER_WAY | describe_problems(*GUARDED, 404),
    response_model=VerificationAnswer,
)
def get_verification(
    job_id: UUID, trail: Trail, _reader: AuditReader, services: WorkerServices
) -> Any:
    """Return the result of a verification that was started before."""
    record_access(trail, "verify_audit_trail")
    return answer_job(services.accountability.verifications.wait(job_id), services.accountability)


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


def answer_job(
    job: VerificationJob, accountability: Accountability
) -> VerificationAnswer | JSONResponse:
    """Return the result of a job, or 202 with where it will be."""
    public_key = accountability.signer.public_key
    if (answer := describe_job(job, public_key)) is not None:
        return answer
    last = accountability.verifications.find_last()
    pending = VerificationUnderWay(
        job_id=job.id,
        started_at=job.started_at,
        last=None if last is None else describe_job(last, public_key),
    )
    headers = {"Location": f"/audit/verify/{job.id}", "Retry-After": "5"}
    return JSONResponse(pending.model_dump(mode="json"), 202, headers)


def describe_job(job: VerificationJob, public_key: str) -> VerificationAnswer | None:
    """Return a job's result, None before it has finished."""
    verification = job.result
    if verification is None or job.finished_at is None:
        return None
    return VerificationAnswer(
        started_at=job.started_at,
        finished_at=job.finished_at,
        intact=verification.intact,
        rows=verification.rows,
        checkpoints=verification.checkpoints,
        head=verification.head,
        newest_checkpoint=verification.newest_checkpoint,
        finding_count=verification.finding_count,
        findings=[FindingPart.model_validate(finding) for finding in verification.findings],
        public_key=public_key,
    )
