"""What a worker holds while it runs, and how routes reach it: as parameter types."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

import structlog
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from serving.accountability import Accountability
from serving.composition import Thresholds
from serving.database.sessions import open_session
from serving.errors import Principal, RoleRefusedError, UnauthenticatedError
from serving.features import FeatureGateway
from serving.judgement import Wanted
from serving.lineage import ManifestReader
from serving.load import LoadLimit
from serving.rate_limit import RateLimiter
from serving.recorder import Recorder
from serving.release_watcher import ReleaseWatcher
from serving.roles import PERMISSIONS, Permission
from serving.settings import Settings
from serving.shadow import ShadowScorer


@dataclass(frozen=True)
class Services:
    settings: Settings
    engine: Engine
    releases: ReleaseWatcher
    features: FeatureGateway
    recorder: Recorder
    shadow: ShadowScorer
    load: LoadLimit
    rates: RateLimiter
    manifests: ManifestReader
    thresholds: Thresholds
    wanted: Wanted
    accountability: Accountability


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

_bearer = HTTPBearer(auto_error=False, description="`python -m serving.tokens issue`")


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


def require(permission: Permission) -> Callable[..., Awaitable[Principal]]:
    """Return the dependency that lets only roles with `permission` pass."""

    # One dependency that calls, not a chain of them: each costs a screening 50 microseconds.
    async def check(
        request: Request,
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    ) -> Principal:
        principal = await authenticate(await get_services(request), credentials)
        if permission not in PERMISSIONS[principal.role]:
            raise RoleRefusedError(
                f"the role {principal.role} may not {permission}", principal, permission
            )
        return principal

    return check


ServiceReader = Annotated[Principal, Depends(require(Permission.READ_SERVICE_INFO))]
Screener = Annotated[Principal, Depends(require(Permission.SCREEN))]
CrisisOverrider = Annotated[Principal, Depends(require(Permission.OVERRIDE_CRISIS))]
Reviewer = Annotated[Principal, Depends(require(Permission.ACCESS_REVIEW_QUEUE))]
ConsentManager = Annotated[Principal, Depends(require(Permission.MANAGE_CONSENTS))]
PassportReader = Annotated[Principal, Depends(require(Permission.VIEW_PASSPORTS))]
ModelReader = Annotated[Principal, Depends(require(Permission.VIEW_MODELS))]
ModelManager = Annotated[Principal, Depends(require(Permission.MANAGE_MODELS))]
DriftReader = Annotated[Principal, Depends(require(Permission.MONITOR_DRIFT))]
ConfigurationReader = Annotated[Principal, Depends(require(Permission.READ_CONFIGURATION))]
PredictionReader = Annotated[Principal, Depends(require(Permission.VIEW_PREDICTIONS))]
Exporter = Annotated[Principal, Depends(require(Permission.EXPORT_INDIVIDUALS))]
Eraser = Annotated[Principal, Depends(require(Permission.ERASE_INDIVIDUALS))]
AccessHistoryReader = Annotated[Principal, Depends(require(Permission.VIEW_ACCESS_HISTORY))]
AuditReader = Annotated[Principal, Depends(require(Permission.READ_AUDIT))]
ComplianceReader = Annotated[Principal, Depends(require(Permission.READ_COMPLIANCE))]
TokenRevoker = Annotated[Principal, Depends(require(Permission.REVOKE_TOKENS))]
