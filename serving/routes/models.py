"""Which releases answer, and how an admin changes that."""

from typing import Annotated, Literal, Self

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, model_validator
from starlette.concurrency import run_in_threadpool

from serving import audit
from serving.audit.trail import MODEL_CHANGE, MODEL_VIEW
from serving.database.sessions import open_session
from serving.dependencies import (
    DbSession,
    ModelManager,
    ModelReader,
    RequestTrail,
    Trail,
    WorkerServices,
)
from serving.errors import Principal
from serving.http.middleware import extend_deadline
from serving.http.parameters import FreeText
from serving.http.problems import GUARDED, describe_problems
from serving.http.strict_json import StrictBody, StrictJsonRoute
from serving.releases.registry_commands import PATIENCE_SECONDS, Change, change_registry
from serving.releases.state import ModelsAnswer, describe_models
from serving.services import Services

router = APIRouter(tags=["models"], route_class=StrictJsonRoute)

#: Entries of the promotion ledger that are shown.
LEDGER_LENGTH = 20


class RolloutRequest(StrictBody):
    """`shadow` names a version in Staging, `share` how many individuals it answers for."""

    action: Literal["shadow", "share", "stop"]
    version: Annotated[int, Field(ge=1)] | None = None
    share: Annotated[float, Field(gt=0, le=1)] | None = None
    reason: FreeText

    @model_validator(mode="after")
    def _name_what_the_action_needs(self) -> Self:
        needed = {"shadow": self.version, "share": self.share, "stop": 0}
        if needed[self.action] is None:
            raise ValueError("shadow needs a version, share needs a share")
        return self

    def make_command(self) -> list[str]:
        given = {"shadow": [str(self.version)], "share": [str(self.share)], "stop": []}
        return [self.action, *given[self.action]]


class RollbackRequest(StrictBody):
    reason: FreeText


class ChangeAnswer(BaseModel):
    message: str


@router.get("/models", responses=describe_problems(*GUARDED))
def get_models(
    trail: Trail, _reader: ModelReader, session: DbSession, services: WorkerServices
) -> ModelsAnswer:
    """Tell which releases this worker answers with, and what is seen of a candidate."""
    trail.record(audit.Event(MODEL_VIEW, "view_models"))
    return describe_models(session, services.screening.releases)


@router.post("/models/rollout", responses=describe_problems(*GUARDED, 409))
async def change_rollout(
    body: RolloutRequest, request: Request, principal: ModelManager, services: WorkerServices
) -> ChangeAnswer:
    """Roll a candidate out: in shadow, for a share of individuals, or not any more."""
    return await carry_out(body.make_command(), body.reason, request, principal, services)


@router.post("/models/rollback", responses=describe_problems(*GUARDED, 409))
async def roll_back(
    body: RollbackRequest, request: Request, principal: ModelManager, services: WorkerServices
) -> ChangeAnswer:
    """Put the release that was Production before back."""
    return await carry_out(["rollback"], body.reason, request, principal, services)


async def carry_out(
    command: list[str], reason: str, request: Request, principal: Principal, services: Services
) -> ChangeAnswer:
    """Change the registry, then audit that it was; a refusal is audited where it is answered."""
    extend_deadline(request, PATIENCE_SECONDS + services.settings.request_timeout)
    change = Change(command, principal, reason)
    message = await run_in_threadpool(change_registry, services.settings, change)
    await run_in_threadpool(record_change, services, request, change)
    return ChangeAnswer(message=message)


def record_change(services: Services, request: Request, change: Change) -> None:
    with open_session(services.engine) as session:
        details = {"command": change.command}
        event = audit.Event(MODEL_CHANGE, change.command[0], details=details)
        RequestTrail(request, session).record(event)
