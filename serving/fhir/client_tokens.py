"""Verifies the JWT that an EHR client sends with every call.

Source: CDS Hooks 2.0, "Trusting CDS Clients": `typ` JWT, RS384 or ES384 (RS256, ES256 too), `aud`
the very URL called, `jti` never seen before. Keys come from the client's registration; a `jku` that
is not the registered one is refused.
"""

import hashlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from sqlalchemy import delete
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from serving.auth.compact_tokens import require_canonical_token
from serving.auth.verifier import MINIMUM_RSA_BITS, ProviderKeys
from serving.database.tables import ClientTokenUse
from serving.errors import UnauthenticatedError
from serving.fhir.clients import EhrClient

TOKEN_TYPE = "JWT"
REQUIRED_CLAIMS = ("iss", "aud", "exp", "iat", "jti")
#: A token lives five minutes at most, and a clock may be this far off.
MAX_LIFETIME_SECONDS = 300
LEEWAY_SECONDS = 30
MAX_TOKEN_ID_LENGTH = 256


@dataclass(frozen=True)
class ClientToken:
    """A verified token; it is accepted once (`take_token`)."""

    client: EhrClient
    token_id: str
    expires_at: datetime


def list_algorithms(key: Any) -> tuple[str, ...]:
    """Return the algorithms of a public key, none for a kind that is not used here."""
    if isinstance(key, RSAPublicKey) and key.key_size >= MINIMUM_RSA_BITS:
        return ("RS384", "RS256")
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP384R1):
        return ("ES384",)
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return ("ES256",)
    return ()


def is_client_token(token: str) -> bool:
    """Return True if a token claims to be a client's: of type JWT, which people's are not."""
    try:
        return jwt.get_unverified_header(token).get("typ") == TOKEN_TYPE
    except jwt.InvalidTokenError:
        return False


class RegisteredKeys:
    """The keys of one client as they stand in its registration."""

    def __init__(self, jwks: dict[str, Any]) -> None:
        keys = jwt.PyJWKSet.from_dict(jwks).keys
        self._keys = {str(key.key_id): (key.key, list_algorithms(key.key)) for key in keys}

    def find(self, token: str) -> tuple[Any, tuple[str, ...]]:
        """Return a token's key and its algorithms; raises UnauthenticatedError."""
        key_id = str(jwt.get_unverified_header(token).get("kid"))
        if key_id not in self._keys:
            raise UnauthenticatedError("the token is signed with a key that is not registered")
        return self._keys[key_id]


class ClientVerifier:
    """Turns a client's token into the client; runs off the event loop."""

    def __init__(self, clients: tuple[EhrClient, ...]) -> None:
        self._clients = {client.issuer: client for client in clients}
        self._keys: dict[str, RegisteredKeys | ProviderKeys] = {
            client.issuer: RegisteredKeys(client.jwks)
            if client.jwks is not None
            else ProviderKeys(str(client.jwks_url), list_algorithms)
            for client in clients
        }

    @property
    def clients(self) -> tuple[EhrClient, ...]:
        return tuple(self._clients.values())

    def verify(self, token: str, audience: str) -> ClientToken:
        """Return the verified contents of a token for `audience`, the URL called.

        Raises UnauthenticatedError; the message holds nothing of the token.
        """
        require_canonical_token(token)
        client = self._find_client(token)
        key, algorithms = self._keys[client.issuer].find(token)
        claims = _decode(token, key, algorithms, audience, client.issuer)
        return ClientToken(client, claims["jti"], datetime.fromtimestamp(claims["exp"], UTC))

    def _find_client(self, token: str) -> EhrClient:
        try:
            header = jwt.get_unverified_header(token)
            claims = jwt.decode(token, options={"verify_signature": False})
        except jwt.InvalidTokenError:
            raise UnauthenticatedError("the token is not valid") from None
        client = self._clients.get(str(claims.get("iss")))
        if client is None:
            raise UnauthenticatedError("the token's issuer is not registered")
        _check_header(header, client)
        return client


def _check_header(header: dict[str, Any], client: EhrClient) -> None:
    if header.get("typ") != TOKEN_TYPE:
        raise UnauthenticatedError("the token is not of type JWT")
    if "crit" in header or "jwk" in header or "x5u" in header or "x5c" in header:
        raise UnauthenticatedError("the token brings extensions or keys of its own")
    if "jku" in header and header["jku"] != client.jwks_url:
        raise UnauthenticatedError("the token names keys that are not registered")
    if not isinstance(header.get("kid"), str):
        raise UnauthenticatedError("the token names no key")


def _decode(
    token: str, key: Any, algorithms: tuple[str, ...], audience: str, issuer: str
) -> dict[str, Any]:
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=list(algorithms),
            audience=audience,
            issuer=issuer,
            leeway=LEEWAY_SECONDS,
            options={"require": list(REQUIRED_CLAIMS)},
        )
    except jwt.InvalidTokenError:
        raise UnauthenticatedError("the token is not valid for this endpoint") from None
    token_id = claims["jti"]
    if not isinstance(token_id, str) or not 0 < len(token_id) <= MAX_TOKEN_ID_LENGTH:
        raise UnauthenticatedError("the token has no usable jti")
    if claims["exp"] - time.time() > MAX_LIFETIME_SECONDS + LEEWAY_SECONDS:
        raise UnauthenticatedError("the token lives longer than five minutes")
    return claims


def take_token(session: Session, token: ClientToken) -> None:
    """Accept a token once, in every worker; raises UnauthenticatedError for one that was used.

    Hashes of tokens are kept until the tokens have expired.
    """
    session.execute(delete(ClientTokenUse).where(ClientTokenUse.expires_at < _forget_before()))
    taken = (
        insert(ClientTokenUse)
        .values(
            client_id=token.client.id,
            token_hash=hashlib.sha256(token.token_id.encode()).digest(),
            expires_at=token.expires_at,
        )
        .on_conflict_do_nothing()
        .returning(ClientTokenUse.client_id)
    )
    if session.scalar(taken) is None:
        raise UnauthenticatedError("the token was used before")


def _forget_before() -> datetime:
    return datetime.fromtimestamp(time.time() - 2 * LEEWAY_SECONDS, UTC)
