"""How routes reach the worker's services and callers: FastAPI dependencies as parameter types."""

from collections.abc import Iterator
from typing import Annotated

import structlog
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import Session

from serving.audit import Event, record
from serving.database.sessions import open_session
from serving.database.threads import run_apart
from serving.errors import (
    NotFoundError,
    Principal,
    RoleRefusedError,
    ScopeMissingError,
    UnauthenticatedError,
)
from serving.fhir.client_tokens import is_client_token, take_token
from serving.fhir.clients import (
    CDS_SCOPE,
    CREATE_RESPONSES,
    READ_ASSESSMENTS,
    READ_CONSENTS,
    READ_PROVENANCE,
    EhrClient,
)
from serving.fhir.screening import EhrCaller
from serving.http.problems import read_request_id
from serving.roles import PERMISSIONS, Permission, Role
from serving.services import Services


# Asynchronous, though it waits for nothing: FastAPI would give it a thread otherwise.
async def get_services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


WorkerServices = Annotated[Services, Depends(get_services)]


def get_session(services: WorkerServices) -> Iterator[Session]:
    with open_session(services.engine) as session:
        yield session


# scope="function" commits before the answer is sent; otherwise a failing commit would still
# be answered with 200.
DbSession = Annotated[Session, Depends(get_session, scope="function")]


async def authenticate(
    services: Services, credentials: HTTPAuthorizationCredentials | None
) -> Principal:
    """Return the caller, or raise UnauthenticatedError or RateLimitedError."""
    if credentials is None:
        raise UnauthenticatedError("send a token: Authorization: Bearer ...")
    principal = await services.accountability.tokens.verify(credentials.credentials)
    structlog.contextvars.bind_contextvars(user_id=principal.user_id)
    services.rates.admit(principal.user_id)
    return principal


class RequestTrail:
    """The audit trail of one request: its rows join the request's transaction."""

    def __init__(self, request: Request, session: Session) -> None:
        self._request = request
        self._session = session

    def record(self, event: Event) -> None:
        """Add the row of a change or viewing, under the caller whom PermissionCheck admitted."""
        principal: Principal = self._request.state.principal
        record(self._session, principal, read_request_id(self._request), event)


def get_trail(request: Request, session: DbSession) -> RequestTrail:
    return RequestTrail(request, session)


Trail = Annotated[RequestTrail, Depends(get_trail, scope="function")]


class PermissionCheck(HTTPBearer):
    """The dependency that lets only roles with `permission` pass, and the scheme OpenAPI names.

    One dependency, not one that asks another for the token: each costs a screening 50
    microseconds.
    """

    def __init__(self, permission: Permission) -> None:
        hint = "`python -m serving.tokens issue`"
        super().__init__(auto_error=False, scheme_name="HTTPBearer", description=hint)
        self._permission = permission

    async def __call__(self, request: Request) -> Principal:  # type: ignore[override]
        credentials = await super().__call__(request)
        principal = await authenticate(await get_services(request), credentials)
        if self._permission not in PERMISSIONS[principal.role]:
            raise RoleRefusedError(
                f"the role {principal.role} may not {self._permission}",
                principal,
                self._permission,
            )
        request.state.principal = principal
        return principal


class EhrCheck(PermissionCheck):
    """Lets registered EHR clients with `scope` pass and, with `permission`, people's own tokens.

    A client acts in the role clinician, under its own name. Each of its tokens counts once and
    for the URL called.
    """

    def __init__(self, scope: str, permission: Permission | None = None) -> None:
        super().__init__(permission or Permission.SCREEN)
        self._scope = scope
        self._admits_people = permission is not None

    async def __call__(self, request: Request) -> EhrCaller:  # type: ignore[override]
        services = await get_services(request)
        credentials = await HTTPBearer.__call__(self, request)
        token = credentials.credentials if credentials else ""
        if self._admits_people and not is_client_token(token):
            principal = await PermissionCheck.__call__(self, request)
            return EhrCaller(principal, read_request_id(request))
        require_ehr_clients(services)
        audience = f"{services.settings.public_url}{request.url.path}"
        client = await run_apart(admit_client, services, token, audience)
        principal = Principal(client.user_id, Role.CLINICIAN)
        structlog.contextvars.bind_contextvars(user_id=principal.user_id)
        if self._scope not in client.scopes:
            raise ScopeMissingError(f"it lacks the scope {self._scope}", principal, self._scope)
        request.state.principal = principal
        return EhrCaller(principal, read_request_id(request), client)


def require_ehr_clients(services: Services) -> None:
    """Raise NotFoundError where no EHR client is registered."""
    if not services.ehr_clients.clients:
        raise NotFoundError("EHR clients are switched off: EHR_CLIENTS_FILE is not set")


def admit_client(services: Services, token: str, audience: str) -> EhrClient:
    """Return the client of a token that was never used before, or raise UnauthenticatedError."""
    verified = services.ehr_clients.verify(token, audience)
    with open_session(services.engine) as session:
        take_token(session, verified)
    return verified.client


HookCaller = Annotated[EhrCaller, Depends(EhrCheck(CDS_SCOPE))]
AssessmentReader = Annotated[
    EhrCaller, Depends(EhrCheck(READ_ASSESSMENTS, Permission.VIEW_PREDICTIONS))
]
ProvenanceReader = Annotated[
    EhrCaller, Depends(EhrCheck(READ_PROVENANCE, Permission.VIEW_PREDICTIONS))
]
ConsentReader = Annotated[EhrCaller, Depends(EhrCheck(READ_CONSENTS, Permission.MANAGE_CONSENTS))]
ResponseSender = Annotated[EhrCaller, Depends(EhrCheck(CREATE_RESPONSES, Permission.SCREEN))]
ServiceReader = Annotated[Principal, Depends(PermissionCheck(Permission.READ_SERVICE_INFO))]
Screener = Annotated[Principal, Depends(PermissionCheck(Permission.SCREEN))]
CrisisOverrider = Annotated[Principal, Depends(PermissionCheck(Permission.OVERRIDE_CRISIS))]
Reviewer = Annotated[Principal, Depends(PermissionCheck(Permission.ACCESS_REVIEW_QUEUE))]
ConsentManager = Annotated[Principal, Depends(PermissionCheck(Permission.MANAGE_CONSENTS))]
PassportReader = Annotated[Principal, Depends(PermissionCheck(Permission.VIEW_PASSPORTS))]
ModelReader = Annotated[Principal, Depends(PermissionCheck(Permission.VIEW_MODELS))]
ModelManager = Annotated[Principal, Depends(PermissionCheck(Permission.MANAGE_MODELS))]
DriftReader = Annotated[Principal, Depends(PermissionCheck(Permission.MONITOR_DRIFT))]
ConfigurationReader = Annotated[Principal, Depends(PermissionCheck(Permission.READ_CONFIGURATION))]
PredictionReader = Annotated[Principal, Depends(PermissionCheck(Permission.VIEW_PREDICTIONS))]
Exporter = Annotated[Principal, Depends(PermissionCheck(Permission.EXPORT_INDIVIDUALS))]
Eraser = Annotated[Principal, Depends(PermissionCheck(Permission.ERASE_INDIVIDUALS))]
AccessHistoryReader = Annotated[Principal, Depends(PermissionCheck(Permission.VIEW_ACCESS_HISTORY))]
AuditReader = Annotated[Principal, Depends(PermissionCheck(Permission.READ_AUDIT))]
ComplianceReader = Annotated[Principal, Depends(PermissionCheck(Permission.READ_COMPLIANCE))]
TokenRevoker = Annotated[Principal, Depends(PermissionCheck(Permission.REVOKE_TOKENS))]
