"""Tokens: what a valid one looks like, and how the embedded default issues and revokes them.

The embedded default signs with HS256 under JWT_SECRET_KEY:
`python -m serving.tokens issue --user dr.who --role clinician` prints one. With JWT_JWKS_URL
set, an identity provider issues them instead (`serving.auth.verifier`).
"""

import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt

from serving.auth.compact_tokens import require_canonical_token
from serving.errors import Principal, UnauthenticatedError
from serving.roles import Role

ALGORITHM = "HS256"
AUDIENCE = "mhras"
ISSUER = "mhras"
#: An explicit type keeps tokens made for other uses of the same key out.
TOKEN_TYPE = "mhras+jwt"
MAX_LIFETIME = timedelta(minutes=60)
REQUIRED_CLAIMS = ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")

#: User ids reach logs and audit rows, so they contain no space and no markup.
USER_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@+-]{0,127}")
TOKEN_ID_PATTERN = re.compile(r"[\x21-\x7e]{1,128}")


@dataclass(frozen=True)
class TokenRules:
    """What a valid token must contain."""

    audience: str = AUDIENCE
    issuer: str = ISSUER
    token_types: tuple[str, ...] = (TOKEN_TYPE,)
    role_claim: str = "role"
    required: tuple[str, ...] = REQUIRED_CLAIMS


@dataclass(frozen=True)
class VerifiedToken:
    """A token whose signature, times and claims hold; times are seconds since 1970."""

    principal: Principal
    token_id: str
    issued_at: float
    expires_at: float


def issue_token(
    secret: str,
    user: str,
    role: Role,
    lifetime: timedelta,
    audience: str = AUDIENCE,
    issuer: str = ISSUER,
) -> str:
    """Return a signed token; raises ValueError for an unusable user id or lifetime."""
    if not USER_PATTERN.fullmatch(user):
        raise ValueError("the user id may hold letters, digits and _ . @ + - only")
    if not timedelta(0) < lifetime <= MAX_LIFETIME:
        raise ValueError("a token lives from 1 to 60 minutes")
    now = datetime.now(UTC)
    claims = {"sub": user, "role": role.value, "aud": audience, "iss": issuer}
    claims |= {"jti": uuid.uuid4().hex}
    times = {"iat": now, "nbf": now, "exp": now + lifetime}
    return jwt.encode(claims | times, secret, ALGORITHM, headers={"typ": TOKEN_TYPE})


def read_token(token: str, secret: str) -> Principal:
    """Return the caller of a token of the embedded default, or raise UnauthenticatedError."""
    return check_token(token, secret, ALGORITHM, TokenRules()).principal


def check_token(token: str, key: Any, algorithm: str, rules: TokenRules) -> VerifiedToken:
    """Return the verified contents of a token, or raise UnauthenticatedError with the reason.

    Exactly one algorithm counts, the key's own: what the token's header claims chooses nothing.
    """
    require_canonical_token(token)
    try:
        decoded = jwt.decode_complete(
            token,
            key,
            algorithms=[algorithm],
            audience=rules.audience,
            issuer=rules.issuer,
            options={"require": [*rules.required, rules.role_claim]},
        )
    except jwt.ExpiredSignatureError:
        raise UnauthenticatedError("the token has expired") from None
    except jwt.InvalidTokenError:
        raise UnauthenticatedError("the token is not valid") from None
    _check_header(decoded["header"], rules)
    return _read_claims(decoded["payload"], rules)


def _check_header(header: dict[str, Any], rules: TokenRules) -> None:
    if header.get("typ") not in rules.token_types:
        raise UnauthenticatedError(f"the token is not of type {rules.token_types[0]}")
    if "crit" in header:
        raise UnauthenticatedError("the token requires extensions that are not supported")


def _read_claims(claims: dict[str, Any], rules: TokenRules) -> VerifiedToken:
    issued_at, expires_at = float(claims["iat"]), float(claims["exp"])
    if expires_at - issued_at > MAX_LIFETIME.total_seconds():
        raise UnauthenticatedError("the token was issued for longer than 60 minutes")
    if claims[rules.role_claim] not in list(Role):
        raise UnauthenticatedError("the token names an unknown role")
    if not USER_PATTERN.fullmatch(claims["sub"]):
        raise UnauthenticatedError("the token names no usable user id")
    principal = Principal(user_id=claims["sub"], role=Role(claims[rules.role_claim]))
    return VerifiedToken(principal, str(claims["jti"]), issued_at, expires_at)
