"""What an individual may ask for: predictions, export, access history, erasure."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from serving.audit.reading import ReadableInstant, ReadableTexts
from serving.dependencies import (
    AccessHistoryReader,
    ConsentManager,
    DbSession,
    Eraser,
    Exporter,
    PredictionReader,
    Trail,
    WorkerServices,
)
from serving.fhir.export import make_bundle
from serving.http.individual import IndividualBody, resolve_individual
from serving.http.parameters import (
    EXAMPLE_ID,
    AnonymizedId,
    Cursor,
    Page,
    PageSize,
    read_cursor,
    read_instant,
    read_number,
    write_cursor,
)
from serving.http.problems import GUARDED, describe_problems
from serving.http.strict_json import StrictJsonRoute
from serving.individuals import actions
from serving.individuals.erasure import ErasureState
from serving.individuals.rights import describe_export
from serving.reviews.answers import PredictionSummary

router = APIRouter(route_class=StrictJsonRoute, tags=["individual"])

FHIR_JSON = "application/fhir+json"


class PredictionPage(Page):
    items: list[PredictionSummary]


class Access(BaseModel):
    """One access to an individual's record, granted or refused."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    created_at: ReadableInstant
    user_id: str
    user_role: str
    event_type: str
    action: str
    result: str
    data_types: ReadableTexts
    unreadable: list[str] = Field(description="Fields that cannot be read: null here.")


class AccessPage(Page):
    items: list[Access]


class Export(BaseModel):
    """All that this service holds about an individual."""

    anonymized_id: str = Field(examples=[EXAMPLE_ID])
    exported_at: datetime
    not_included: str
    consents: list[dict[str, Any]]
    consent_history: list[dict[str, Any]]
    predictions: list[dict[str, Any]]
    reviews: list[dict[str, Any]]
    review_events: list[dict[str, Any]]
    contact_attempts: list[dict[str, Any]]
    crisis_overrides: list[dict[str, Any]]


class StorePart(BaseModel):
    state: str
    changed_at: datetime
    details: dict[str, Any]


class ErasureAnswer(BaseModel):
    """The progress of an erasure, and its receipt, which the public key verifies."""

    erasure_id: UUID
    anonymized_id: str = Field(examples=[EXAMPLE_ID])
    requested_at: datetime
    stores: dict[str, StorePart]
    receipt: dict[str, Any]
    public_key: str = Field(description="Ed25519, base64; receipt.key_id names the key it was.")


class ErasurePage(BaseModel):
    items: list[ErasureAnswer]


class Pseudonym(BaseModel):
    anonymized_id: str = Field(examples=[EXAMPLE_ID])


@router.post("/individuals/lookup", responses=describe_problems(*GUARDED))
def look_up_individual(
    body: IndividualBody, trail: Trail, _caller: ConsentManager, services: WorkerServices
) -> Pseudonym:
    """Return the pseudonym of your own patient_id, which is hashed on arrival and not kept."""
    anonymized_id = resolve_individual(body, services.settings)
    actions.record_lookup(trail, anonymized_id)
    return Pseudonym(anonymized_id=anonymized_id)


@router.get("/individuals/{anonymized_id}/predictions", responses=describe_problems(*GUARDED))
def get_predictions(
    anonymized_id: AnonymizedId,
    request: Request,
    trail: Trail,
    principal: PredictionReader,
    session: DbSession,
    limit: PageSize = 50,
    cursor: Cursor = None,
) -> PredictionPage:
    """List what was answered about an individual, latest first."""
    request.state.anonymized_id = anonymized_id
    before = read_cursor(cursor, read_instant, UUID) if cursor else None
    listed = actions.view_predictions(session, trail, anonymized_id, before, limit)
    shown = listed.predictions
    more = write_cursor(shown[-1].created_at, shown[-1].id) if listed.has_more else None
    items = [
        PredictionSummary.make(prediction, prediction.id in listed.overridden)
        for prediction in shown
    ]
    return PredictionPage(items=items, next_cursor=more)


class PredictionsBody(IndividualBody):
    """A person whose predictions are listed; a body, because addresses end up in logs."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"patient_id": "4711"}]})

    limit: Annotated[int, Field(ge=1, le=100)] = 50
    cursor: Annotated[str, Field(max_length=256)] | None = None


@router.post("/individuals/predictions", responses=describe_problems(*GUARDED))
def find_predictions(
    body: PredictionsBody,
    request: Request,
    trail: Trail,
    principal: PredictionReader,
    session: DbSession,
    services: WorkerServices,
) -> PredictionPage:
    """List what was answered about a person, named by your own patient_id or by pseudonym."""
    anonymized_id = resolve_individual(body, services.settings)
    return get_predictions(
        anonymized_id, request, trail, principal, session, body.limit, body.cursor
    )


@router.get(
    "/individuals/{anonymized_id}/export",
    response_model=Export,
    responses={
        **describe_problems(*GUARDED),
        200: {"content": {FHIR_JSON: {"schema": {"type": "object"}}}},
    },
)
def export_individual(
    anonymized_id: AnonymizedId,
    request: Request,
    trail: Trail,
    principal: Exporter,
    session: DbSession,
    form: Annotated[
        Literal["json", "fhir"] | None,
        Query(alias="format", description="By default the type of the Accept header."),
    ] = None,
    accept: Annotated[str, Header(max_length=1000, include_in_schema=False)] = "",
) -> JSONResponse:
    """Hand out everything held about an individual: as JSON, or as a FHIR R4 Bundle."""
    request.state.anonymized_id = anonymized_id
    wants_fhir = form == "fhir" or (form is None and FHIR_JSON in accept)
    held = actions.export(session, trail, anonymized_id, "fhir" if wants_fhir else "json")
    if wants_fhir:
        return JSONResponse(
            make_bundle(anonymized_id, held, datetime.now(UTC)), media_type=FHIR_JSON
        )
    return JSONResponse(describe_export(anonymized_id, held))


@router.get("/individuals/{anonymized_id}/access-history", responses=describe_problems(*GUARDED))
def get_access_history(
    anonymized_id: AnonymizedId,
    trail: Trail,
    principal: AccessHistoryReader,
    session: DbSession,
    limit: PageSize = 50,
    cursor: Cursor = None,
) -> AccessPage:
    """Tell who saw or changed what about an individual, latest first, erased or not."""
    before = read_cursor(cursor, read_number)[0] if cursor else None
    shown, has_more = actions.view_accesses(session, trail, anonymized_id, before, limit)
    more = write_cursor(shown[-1].id) if has_more else None
    return AccessPage(items=[Access.model_validate(row) for row in shown], next_cursor=more)


@router.get("/individuals/{anonymized_id}/erasures", responses=describe_problems(*GUARDED))
def get_erasures(
    anonymized_id: AnonymizedId,
    trail: Trail,
    principal: AccessHistoryReader,
    session: DbSession,
    services: WorkerServices,
) -> ErasurePage:
    """Show the erasures of an individual with their receipts, and what is still to do."""
    public_key = services.accountability.signer.public_key
    erasures = actions.view_erasures(session, trail, anonymized_id)
    return ErasurePage(items=[describe_erasure(erasure, public_key) for erasure in erasures])


@router.delete("/individuals/{anonymized_id}", responses=describe_problems(*GUARDED))
def erase(
    anonymized_id: AnonymizedId,
    trail: Trail,
    principal: Eraser,
    session: DbSession,
    services: WorkerServices,
) -> ErasureAnswer:
    """Erase an individual here at once, queue the other stores, and give a signed receipt.

    Asking again is harmless: without anything new to erase the receipt is the same.
    """
    signer = services.accountability.signer
    state = actions.erase(session, trail, anonymized_id, principal.user_id, signer)
    return describe_erasure(state, signer.public_key)


def describe_erasure(state: ErasureState, public_key: str) -> ErasureAnswer:
    return ErasureAnswer(
        erasure_id=state.erasure.id,
        anonymized_id=state.erasure.anonymized_id,
        requested_at=state.erasure.requested_at,
        stores={
            name: StorePart(state=row.state, changed_at=row.changed_at, details=row.details)
            for name, row in state.stores.items()
        },
        receipt=state.erasure.receipt,
        public_key=public_key,
    )
