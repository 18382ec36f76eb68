"""Verifies a caller's token (signature, claims, revocation) and caches the result.

Two kinds of keys, never both at once: the shared secret of the embedded default (HS256), or
the public keys an identity provider publishes at JWT_JWKS_URL (RSA: RS256, P-256: ES256).
"""

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import httpx
import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWKClient
from sqlalchemy.exc import SQLAlchemyError

from serving.auth.revocations import RevocationList, Revocations
from serving.auth.tokens import (
    ALGORITHM,
    REQUIRED_CLAIMS,
    TOKEN_TYPE,
    TokenRules,
    VerifiedToken,
    check_token,
)
from serving.database.threads import run_apart
from serving.errors import (
    DatabaseUnavailableError,
    IdentityProviderUnavailableError,
    Principal,
    UnauthenticatedError,
)
from serving.settings import Settings

log = structlog.get_logger("serving.auth")

#: Verified tokens that a worker caches; at the limit it clears the cache.
REMEMBERED_TOKENS = 10_000
#: RFC 9068 access tokens; ID tokens and others of the same provider are not for us.
PROVIDER_TOKEN_TYPES = ("at+jwt", "application/at+jwt")
KEYS_LIVE_SECONDS = 300
#: A token that names an unknown key makes us ask the provider no more often than this.
REFRESH_PAUSE_SECONDS = 10
PROVIDER_TIMEOUT_SECONDS = 3
MINIMUM_RSA_BITS = 2048


class KeySource(Protocol):
    """Where the key of a token comes from, and with which one algorithm it is used."""

    def find(self, token: str) -> tuple[Any, str]: ...

    def get_edition(self) -> int:
        """Return a number that grows when the keys change, without waiting for them."""
        ...


class SharedSecret:
    """The embedded default: one secret, one algorithm."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def find(self, token: str) -> tuple[Any, str]:
        return self._secret, ALGORITHM

    def get_edition(self) -> int:
        return 0


class KeyClient(PyJWKClient):
    """PyJWT's client of a key set, which follows no redirect: only the set address is trusted."""

    def fetch_data(self) -> Any:
        """Return the key set; raises httpx.HTTPError, for a redirect too, and ValueError."""
        response = httpx.get(self.uri, timeout=self.timeout, follow_redirects=False)
        response.raise_for_status()
        return response.json()


class ProviderKeys:
    """The keys of a publisher by their id, each with what `choose` allows it to be used for.

    Keys are kept when the publisher is away; a key for which `choose` returns nothing is unusable.
    """

    def __init__(self, url: str, choose: Callable[[Any], Any] | None = None) -> None:
        self._choose = choose or choose_algorithm
        self.url = url
        self._client = KeyClient(url, cache_jwk_set=False, timeout=PROVIDER_TIMEOUT_SECONDS)
        self._lock = threading.Lock()
        self._keys: dict[str, tuple[Any, Any]] = {}
        self._edition = 0
        self._asked_at = float("-inf")

    def find(self, token: str) -> tuple[Any, Any]:
        """Return the key a token names and what it may be used for.

        Raises UnauthenticatedError, and IdentityProviderUnavailableError before any key was had.
        """
        try:
            key_id = str(jwt.get_unverified_header(token).get("kid"))
        except jwt.InvalidTokenError:
            raise UnauthenticatedError("the token is not valid") from None
        if key_id in self._keys:
            self._refresh_aside()
        else:
            self._refresh_if_due(REFRESH_PAUSE_SECONDS)
        if not self._keys:
            raise IdentityProviderUnavailableError("its keys cannot be read; try again shortly")
        if key_id not in self._keys:
            raise UnauthenticatedError("the token is signed with a key that is not known")
        return self._keys[key_id]

    def get_edition(self) -> int:
        """Return a number that grows when the keys change; keys that are due are refreshed aside.

        It may lag behind: what is kept under an edition was verified with its keys or older ones.
        """
        self._refresh_aside()
        return self._edition

    def _refresh_aside(self) -> None:
        """Refresh keys that are due in a thread of its own: a known key waits for no provider."""
        if time.monotonic() - self._asked_at >= KEYS_LIVE_SECONDS and not self._lock.locked():
            refresh = threading.Thread(
                target=self._refresh_if_due, args=(KEYS_LIVE_SECONDS,), name="jwks", daemon=True
            )
            refresh.start()

    def _refresh_if_due(self, pause: float) -> None:
        with self._lock:
            if time.monotonic() - self._asked_at >= pause:
                self._asked_at = time.monotonic()
                self._refresh()

    def _refresh(self) -> None:
        """Read the provider's keys; keep the last good ones when it sends none that can be used."""
        try:
            keys = self._client.get_signing_keys(refresh=True)
            named_keys = {str(key.key_id): (key.key, self._choose(key.key)) for key in keys}
        # PyJWT lets the errors of HTML, bad encoding and malformed key sets through.
        except Exception as error:
            log.error("keys of the identity provider not read", cause=type(error).__name__)
            return
        usable = {name: (key, kind) for name, (key, kind) in named_keys.items() if kind}
        if usable:
            self._edition += usable != self._keys
            self._keys = usable
        else:
            log.error("the identity provider sent no key that can be used", keys=len(named_keys))


def choose_algorithm(key: Any) -> str:
    """Return the one algorithm of a public key; empty for a kind that is not used here."""
    if isinstance(key, RSAPublicKey) and key.key_size >= MINIMUM_RSA_BITS:
        return "RS256"
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return "ES256"
    return ""


def make_rules(settings: Settings) -> TokenRules:
    embedded = settings.jwt_jwks_url is None
    return TokenRules(
        audience=settings.jwt_audience,
        issuer=settings.jwt_issuer,
        token_types=(TOKEN_TYPE,) if embedded else PROVIDER_TOKEN_TYPES,
        role_claim=settings.jwt_role_claim,
        # Providers seldom send nbf; when they do it binds, and iat always does.
        required=REQUIRED_CLAIMS
        if embedded
        else tuple(claim for claim in REQUIRED_CLAIMS if claim != "nbf"),
    )


class TokenVerifier:
    """Turns a token into its principal; runs on the event loop, waits off it."""

    def __init__(self, settings: Settings, revocations: Revocations) -> None:
        self._keys: KeySource = (
            SharedSecret(settings.jwt_secret_key.get_secret_value())
            if settings.jwt_jwks_url is None
            else ProviderKeys(settings.jwt_jwks_url)
        )
        self._rules = make_rules(settings)
        self._revocations = revocations
        #: By token: the edition of the keys that it was verified with, and what it says.
        self._remembered: dict[str, tuple[int, VerifiedToken]] = {}

    async def verify(self, token: str) -> Principal:
        """Return the principal, or raise UnauthenticatedError.

        Raises DatabaseUnavailableError when revocations cannot be read: a token that may be
        revoked opens nothing.
        """
        verified = self._recall(token) or await self._check(token)
        revoked = self._revocations.get_known()
        if revoked is None:
            revoked = await run_apart(self._read_revocations)
        if revoked.revokes(verified.token_id, verified.principal.user_id, verified.issued_at):
            raise UnauthenticatedError("the token was revoked")
        return verified.principal

    def _recall(self, token: str) -> VerifiedToken | None:
        """Return a token verified before, while it is in time and the keys are the same."""
        edition, verified = self._remembered.get(token, (0, None))
        if verified is None or verified.expires_at <= time.time():
            return None
        # A provider removes a key that leaked: what it signed counts no longer.
        return verified if edition == self._keys.get_edition() else None

    async def _check(self, token: str) -> VerifiedToken:
        self._remembered.pop(token, None)
        # Before the key is found: one that is removed meanwhile leaves an old edition behind.
        edition = self._keys.get_edition()
        if isinstance(self._keys, SharedSecret):
            key, algorithm = self._keys.find(token)
        else:
            key, algorithm = await run_apart(self._keys.find, token)
        verified = check_token(token, key, algorithm, self._rules)
        if len(self._remembered) >= REMEMBERED_TOKENS:
            self._remembered.clear()
        self._remembered[token] = edition, verified
        return verified

    def _read_revocations(self) -> RevocationList:
        try:
            return self._revocations.read()
        except SQLAlchemyError as error:
            log.error("revocations not read", cause=type(error).__name__)
            raise DatabaseUnavailableError("whether the token was revoked is unknown") from None
