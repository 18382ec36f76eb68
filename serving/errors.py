"""Errors that carry their HTTP status; rendered as RFC 9457 problems in one place.

No message ever holds a value that a caller sent about a person.
"""

import math
from dataclasses import dataclass
from typing import Protocol

from serving.roles import Role


class Actor(Protocol):
    """The actor of a recorded event: a caller, or a flow."""

    @property
    def user_id(self) -> str: ...
    @property
    def role(self) -> str: ...


@dataclass(frozen=True)
class Principal:
    """The authenticated caller."""

    user_id: str
    role: Role


@dataclass(frozen=True)
class FlowActor:
    """A flow, or another system, that acts without a person's request."""

    user_id: str
    role: str = "flow"


class ProblemError(Exception):
    """An answer other than success; `kind` becomes the problem's type."""

    status = 500
    kind = "internal-error"
    title = "The request could not be answered"
    headers: dict[str, str] = {}  # noqa: RUF012 (never changed)
    #: Whether the problem carries the crisis guidance, whatever its status.
    shows_guidance = False

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class UnauthenticatedError(ProblemError):
    status = 401
    kind = "unauthenticated"
    title = "A valid token is needed"
    headers = {"WWW-Authenticate": "Bearer"}  # noqa: RUF012


class IdentityProviderUnavailableError(ProblemError):
    status = 503
    kind = "identity-provider-unavailable"
    title = "The identity provider cannot be reached"
    headers = {"Retry-After": "10"}  # noqa: RUF012


class ConflictError(ProblemError):
    status = 409
    kind = "conflict"
    title = "The record is in a state that does not allow this"


class UnusableError(ProblemError):
    """A request that is well-formed and still makes no sense."""

    status = 422
    kind = "unusable-request"
    title = "Invalid request"


class RefusedError(ProblemError):
    """A refusal that the audit trail records, in its own transaction."""

    status = 403
    kind = "refused"
    title = "This is not allowed"

    def __init__(
        self, detail: str, principal: Actor, action: str, anonymized_id: str | None = None
    ) -> None:
        super().__init__(detail)
        self.principal = principal
        self.action = action
        self.anonymized_id = anonymized_id


class RoleRefusedError(RefusedError):
    kind = "role-not-allowed"
    title = "Your role does not allow this"


class ConsentMissingError(RefusedError):
    kind = "consent-missing"
    title = "This person has no active consent for screening"


class ClaimedByAnotherError(RefusedError):
    """Returned as a conflict and audited: the item belongs to another clinician."""

    status = 409
    kind = "claimed-by-another"
    title = "Another clinician has claimed this item"


class ScopeMissingError(RefusedError):
    kind = "scope-missing"
    title = "The client is not registered for this"


class SecondPersonNeededError(RefusedError):
    """A clinician lowers a crisis that the same clinician declared."""

    status = 409
    kind = "second-person-needed"
    title = "Another clinician must decide this"


class FeatureDisabledError(RefusedError):
    kind = "feature-disabled"
    title = "This is switched off here"


class ReleaseUnavailableError(ProblemError):
    status = 503
    kind = "no-release"
    title = "No Production release is loaded"
    headers = {"Retry-After": "10"}  # noqa: RUF012


class ScoringFailedError(ProblemError):
    status = 503
    kind = "scoring-failed"
    title = "The release could not score"
    headers = {"Retry-After": "10"}  # noqa: RUF012


class OverloadedError(ProblemError):
    status = 503
    kind = "overloaded"
    title = "Too many screenings are under way"
    headers = {"Retry-After": "1"}  # noqa: RUF012


class RateLimitedError(ProblemError):
    status = 429
    kind = "rate-limited"
    title = "Too many requests"

    def __init__(self, wait_seconds: float) -> None:
        super().__init__("too many requests by this caller; Retry-After says when there is room")
        self.headers = {"Retry-After": str(math.ceil(wait_seconds))}


class NotFoundError(ProblemError):
    status = 404
    kind = "not-found"
    title = "There is no such record"


class RequestInFlightError(ProblemError):
    status = 409
    kind = "request-in-flight"
    title = "A request with this idempotency key is under way"
    headers = {"Retry-After": "1"}  # noqa: RUF012


class RegistryRefusedError(RefusedError):
    status = 409
    kind = "registry-refused"
    title = "The registry did not carry the change out"


class IdempotencyMismatchError(ProblemError):
    status = 422
    kind = "idempotency-mismatch"
    title = "The idempotency key belongs to another request"


class DatabaseUnavailableError(ProblemError):
    status = 503
    kind = "database-unavailable"
    title = "The database cannot be reached"
    headers = {"Retry-After": "10"}  # noqa: RUF012


class DeadlineExceededError(ProblemError):
    status = 504
    kind = "deadline-exceeded"
    title = "The answer took too long"


class MaybeRecordedError(DeadlineExceededError):
    """The database was asked to record a screening, and its reply did not come."""

    def __init__(self) -> None:
        super().__init__(
            "the screening timed out; it may have been recorded. Send it again with the same "
            "Idempotency-Key to get the recorded answer"
        )
