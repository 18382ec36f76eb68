"""POST /tokens/revoke."""

from typing import Annotated, Self

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, model_validator

from serving import audit
from serving.audit.trail import TOKENS_REVOKED
from serving.auth.revocations import revoke
from serving.auth.tokens import TOKEN_ID_PATTERN, USER_PATTERN
from serving.dependencies import DbSession, TokenRevoker, Trail
from serving.http.parameters import FreeText
from serving.http.problems import GUARDED, describe_problems
from serving.http.strict_json import StrictBody, StrictJsonRoute

router = APIRouter(tags=["access"], route_class=StrictJsonRoute)


class RevocationBody(StrictBody):
    """One token by its id, or every token issued until now: of a user, or of everyone."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": "dr.who", "reason": "left the service"}]}
    )

    token_id: Annotated[str, Field(pattern=f"^{TOKEN_ID_PATTERN.pattern}$")] | None = Field(
        default=None, description="The token's jti."
    )
    user_id: Annotated[str, Field(pattern=f"^{USER_PATTERN.pattern}$")] | None = None
    everyone: bool = False
    reason: FreeText

    @model_validator(mode="after")
    def _name_one_target(self) -> Self:
        targets = (self.token_id is not None, self.user_id is not None, self.everyone)
        if targets.count(True) != 1:
            raise ValueError("one of token_id, user_id and everyone is needed")
        return self


class RevocationAnswer(BaseModel):
    revocation_id: int


@router.post("/tokens/revoke", responses=describe_problems(*GUARDED))
def revoke_tokens(
    body: RevocationBody, trail: Trail, principal: TokenRevoker, session: DbSession
) -> RevocationAnswer:
    """Make tokens invalid in every worker within a second. It cannot be undone."""
    made = revoke(session, principal.user_id, body.reason, body.token_id, body.user_id)
    scope = "token" if body.token_id else "user" if body.user_id else "everyone"
    details = {"revocation_id": made.id, "scope": scope, "of": body.token_id or body.user_id}
    event = audit.Event(TOKENS_REVOKED, "revoke_tokens", details=details)
    trail.record(event)
    return RevocationAnswer(revocation_id=made.id)
