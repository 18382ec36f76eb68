"""PUT, GET and DELETE /consents/{anonymized_id}."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import AwareDatetime, BeforeValidator, ConfigDict, Field, field_validator

from feature_repo.consent_terms import DataType, Purpose
from feature_repo.pseudonyms import derive_key_id
from serving import audit
from serving.audit.trail import REVIEW_LIST
from serving.consent.actions import record_consents, view_consents, withdraw_consents
from serving.consent.changes import Grant
from serving.consent.notices import list_expiring
from serving.consent.state import (
    ConsentState,
    ExpiringConsent,
    ExpiringConsents,
    describe_consents,
)
from serving.dependencies import ConsentManager, DbSession, Trail, WorkerServices
from serving.http.individual import IndividualBody, resolve_individual
from serving.http.parameters import AnonymizedId, in_utc
from serving.http.problems import GUARDED, describe_problems
from serving.http.strict_json import StrictBody, StrictJsonRoute

router = APIRouter(tags=["consent"], route_class=StrictJsonRoute)


#: Further ahead, a change of time zone may leave the calendar.
LAST_YEAR = 2200


def _validate_text(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("must be an ISO 8601 instant with a time zone")
    return value


def _validate_ahead(moment: datetime) -> datetime:
    if not datetime.now(UTC) < moment or moment.year >= LAST_YEAR:
        raise ValueError(f"must lie in the future, before {LAST_YEAR}")
    return in_utc(moment)


class GrantBody(StrictBody):
    """Each of the data types for each of the purposes, until the instant."""

    data_types: Annotated[list[DataType], Field(min_length=1, max_length=3)]
    purposes: Annotated[list[Purpose], Field(min_length=1, max_length=2)]
    expires_at: Annotated[AwareDatetime, BeforeValidator(_validate_text), Field(strict=False)]

    @field_validator("expires_at")
    @classmethod
    def _lie_ahead(cls, moment: datetime) -> datetime:
        return _validate_ahead(moment)


class ConsentBody(StrictBody):
    """All that an individual agrees to from now on; it replaces what was in force."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "grants": [
                        {
                            "data_types": ["survey", "wearable"],
                            "purposes": ["screening"],
                            "expires_at": "2099-01-01T00:00:00Z",
                        }
                    ]
                }
            ]
        }
    )

    grants: Annotated[list[GrantBody], Field(min_length=1, max_length=6)]


class ConsentOfBody(ConsentBody, IndividualBody):
    """The same, of a person named by the clinic's own identifier."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "patient_id": "4711",
                    "grants": [
                        {
                            "data_types": ["survey"],
                            "purposes": ["screening"],
                            "expires_at": "2099-01-01T00:00:00Z",
                        }
                    ],
                }
            ]
        }
    )


@router.get("/consents", responses=describe_problems(*GUARDED))
def get_expiring_consents(
    trail: Trail,
    principal: ConsentManager,
    session: DbSession,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> ExpiringConsents:
    """List the consents that end within a week, as the nightly flow found them, soonest first."""
    expiring = list_expiring(session, limit)
    individuals = sorted({consent.anonymized_id for consent in expiring})
    event = audit.Event(REVIEW_LIST, "list_expiring", details={"individuals": individuals})
    trail.record(event)
    return ExpiringConsents(items=[ExpiringConsent.model_validate(consent) for consent in expiring])


@router.get("/consents/{anonymized_id}", responses=describe_problems(*GUARDED))
def get_consents(
    anonymized_id: AnonymizedId,
    request: Request,
    trail: Trail,
    principal: ConsentManager,
    session: DbSession,
) -> ConsentState:
    """Show what an individual agrees to. Without a consent record, nothing is permitted."""
    request.state.anonymized_id = anonymized_id
    return view_consents(session, trail, anonymized_id)


@router.post("/consents", responses=describe_problems(*GUARDED))
def post_consents(
    body: ConsentOfBody,
    request: Request,
    trail: Trail,
    principal: ConsentManager,
    session: DbSession,
    services: WorkerServices,
) -> ConsentState:
    """Record what a person agrees to, by your own patient_id; the answer has the pseudonym."""
    anonymized_id = resolve_individual(body, services.settings)
    return put_consents(anonymized_id, body, request, trail, principal, session, services)


@router.put("/consents/{anonymized_id}", responses=describe_problems(*GUARDED))
def put_consents(
    anonymized_id: AnonymizedId,
    body: ConsentBody,
    request: Request,
    trail: Trail,
    principal: ConsentManager,
    session: DbSession,
    services: WorkerServices,
) -> ConsentState:
    """Record what an individual agrees to; effective in every worker within a second."""
    request.state.anonymized_id = anonymized_id
    grants = [
        Grant(frozenset(grant.data_types), frozenset(grant.purposes), grant.expires_at)
        for grant in body.grants
    ]
    key_id = derive_key_id(services.settings.anonymization_salt.get_secret_value())
    record_consents(session, trail, anonymized_id, grants, key_id, principal.user_id)
    return describe_consents(session, anonymized_id)


@router.delete("/consents/{anonymized_id}", responses=describe_problems(*GUARDED))
def delete_consents(
    anonymized_id: AnonymizedId,
    request: Request,
    trail: Trail,
    principal: ConsentManager,
    session: DbSession,
    data_type: DataType | None = None,
    purpose: Purpose | None = None,
) -> ConsentState:
    """Withdraw all consents, or a data type, or a purpose; effective everywhere in a second."""
    request.state.anonymized_id = anonymized_id
    withdraw_consents(session, trail, anonymized_id, data_type, purpose, principal.user_id)
    return describe_consents(session, anonymized_id)


class ConsentLookupBody(IndividualBody):
    """A person whose consent is shown; a body, because addresses end up in logs."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"patient_id": "4711"}]})


class WithdrawalBody(IndividualBody):
    """What a person withdraws: a data type, a purpose, or with neither everything."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"patient_id": "4711", "data_type": "wearable"}]}
    )

    data_type: DataType | None = None
    purpose: Purpose | None = None


@router.post("/consents/lookup", responses=describe_problems(*GUARDED))
def look_up_consents(
    body: ConsentLookupBody,
    request: Request,
    trail: Trail,
    principal: ConsentManager,
    session: DbSession,
    services: WorkerServices,
) -> ConsentState:
    """Show what a person agrees to, named by your own patient_id or by pseudonym."""
    anonymized_id = resolve_individual(body, services.settings)
    return get_consents(anonymized_id, request, trail, principal, session)


@router.post("/consents/withdraw", responses=describe_problems(*GUARDED))
def withdraw_consents_of(
    body: WithdrawalBody,
    request: Request,
    trail: Trail,
    principal: ConsentManager,
    session: DbSession,
    services: WorkerServices,
) -> ConsentState:
    """Withdraw consent of a person named by your own patient_id or by pseudonym."""
    anonymized_id = resolve_individual(body, services.settings)
    named = (body.data_type, body.purpose)
    return delete_consents(anonymized_id, request, trail, principal, session, *named)
