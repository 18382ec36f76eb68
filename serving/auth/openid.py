"""Signing in at an identity provider: OpenID Connect, authorization code flow with PKCE.

The provider proves who a person is by an ID token, which counts only with our client as its
audience, the nonce of the visit, and a signature by one of the provider's published keys.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import httpx
import jwt
import structlog
from cachetools import TTLCache

from serving.auth.sign_in_tickets import SIGN_IN_PATH, ProviderVisit
from serving.auth.tokens import USER_PATTERN
from serving.auth.verifier import KEYS_LIVE_SECONDS, ProviderKeys
from serving.errors import (
    IdentityProviderUnavailableError,
    Principal,
    UnauthenticatedError,
)
from serving.roles import Role
from serving.settings import Settings

if TYPE_CHECKING:
    from authlib.integrations.httpx_client import OAuth2Client

log = structlog.get_logger("serving.auth")

CALLBACK_PATH = f"{SIGN_IN_PATH}/callback"
SCOPES = "openid profile"
TIMEOUT_SECONDS = 3
#: The provider's metadata is read again after this, so that its keys may move.
DESCRIPTION_LIVES_SECONDS = KEYS_LIVE_SECONDS
REQUIRED_CLAIMS = ("exp", "iat", "iss", "aud", "sub", "nonce")
#: OpenID Connect Back-Channel Logout 1.0, 2.4.
LOGOUT_CLAIMS = ("exp", "iat", "iss", "aud", "jti", "events")
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
#: How far the provider's clock may differ.
LEEWAY_SECONDS = 30


class OpenIdProvider:
    """One identity provider and this client of it."""

    def __init__(self, settings: Settings) -> None:
        assert settings.oidc_issuer is not None
        assert settings.oidc_client_id is not None
        assert settings.console_url is not None
        self._issuer, self._client_id = settings.oidc_issuer, settings.oidc_client_id
        secret = settings.oidc_client_secret
        self._client_secret = secret.get_secret_value() if secret else None
        self._redirect_uri = f"{settings.console_url.rstrip('/')}{CALLBACK_PATH}"
        self._role_claim, self._user_claim = settings.oidc_role_claim, settings.oidc_user_claim
        self._acr_values = settings.oidc_acr_values.replace(",", " ").split()
        self._lock = threading.Lock()
        self._described: TTLCache[str, Mapping[str, Any]] = TTLCache(1, DESCRIPTION_LIVES_SECONDS)
        self._keys: ProviderKeys | None = None

    def make_address(self, state: str, visit: ProviderVisit) -> str:
        """Return the provider's page that a person signs in on.

        Raises IdentityProviderUnavailableError.
        """
        endpoint = self._describe()["authorization_endpoint"]
        wanted = {"acr_values": " ".join(self._acr_values)} if self._acr_values else {}
        with self._open_client() as client:
            address, _ = client.create_authorization_url(
                endpoint,
                state=state,
                nonce=visit.nonce,
                code_verifier=visit.code_verifier,
                **wanted,
            )
        return str(address)

    def identify(self, code: str, visit: ProviderVisit) -> Principal:
        """Return who came back from the provider with a code.

        Raises UnauthenticatedError, and IdentityProviderUnavailableError.
        """
        claims = self._verify(self._exchange(code, visit), visit)
        return self._read_principal(claims)

    def identify_signed_out(self, logout_token: str) -> str:
        """Return the user whom the provider has signed out, by OpenID Connect Back-Channel Logout.

        Raises UnauthenticatedError, and IdentityProviderUnavailableError.
        """
        claims = self._decode(logout_token, LOGOUT_CLAIMS)
        user, events = claims.get(self._user_claim), claims["events"]
        # An ID token that leaked must end no session: it has a nonce, a logout token has none.
        is_logout = isinstance(events, dict) and LOGOUT_EVENT in events and "nonce" not in claims
        if not is_logout or not isinstance(user, str) or not USER_PATTERN.fullmatch(user):
            raise UnauthenticatedError("this is no logout token that names a user")
        return user

    def is_issuer(self, issuer: str | None) -> bool:
        """Return True if an answer names this provider, or none (RFC 9207)."""
        return issuer is None or issuer == self._issuer

    def _exchange(self, code: str, visit: ProviderVisit) -> str:
        # Late, as its client is: httpx2 is what authlib sends by, with errors of its own.
        import httpx2
        from authlib.common.errors import AuthlibBaseError

        endpoint = self._describe()["token_endpoint"]
        try:
            with self._open_client() as client:
                token = client.fetch_token(endpoint, code=code, code_verifier=visit.code_verifier)
        except AuthlibBaseError:
            raise UnauthenticatedError("the identity provider did not accept the code") from None
        except (httpx2.HTTPError, ValueError) as error:
            log.error("identity provider not reached", cause=type(error).__name__)
            raise IdentityProviderUnavailableError("try again in a moment") from None
        id_token = token.get("id_token")
        if not isinstance(id_token, str):
            raise UnauthenticatedError("the identity provider sent no ID token")
        return id_token

    def _verify(self, id_token: str, visit: ProviderVisit) -> Mapping[str, Any]:
        claims = self._decode(id_token, REQUIRED_CLAIMS)
        if claims["nonce"] != visit.nonce:
            raise UnauthenticatedError("the ID token belongs to another visit")
        if claims.get("azp", self._client_id) != self._client_id:
            raise UnauthenticatedError("the ID token was issued to another client")
        if self._acr_values and claims.get("acr") not in self._acr_values:
            raise UnauthenticatedError("the identity provider did not check you strongly enough")
        return claims

    def _decode(self, token: str, required: Sequence[str]) -> dict[str, Any]:
        """Return the claims of a token that the provider signed for this client.

        Raises UnauthenticatedError, and IdentityProviderUnavailableError.
        """
        key, algorithm = self._find_keys().find(token)
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._client_id,
                issuer=self._issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": [*required]},
            )
        except jwt.InvalidTokenError:
            raise UnauthenticatedError("the token of the identity provider is not valid") from None
        return claims

    def _read_principal(self, claims: Mapping[str, Any]) -> Principal:
        """Return the user and the one role that claims name; raises UnauthenticatedError."""
        user, named = claims.get(self._user_claim), claims.get(self._role_claim)
        if not isinstance(user, str) or not USER_PATTERN.fullmatch(user):
            raise UnauthenticatedError("the ID token names no usable user id")
        roles = [
            role for role in (named if isinstance(named, list) else [named]) if role in list(Role)
        ]
        if len(roles) != 1:
            raise UnauthenticatedError("the ID token names no role of MHRAS, or several")
        return Principal(user, Role(roles[0]))

    def _find_keys(self) -> ProviderKeys:
        """Return the keys at the address that the provider describes now, or described last."""
        with self._lock:
            try:
                address = self._describe_locked()["jwks_uri"]
            except IdentityProviderUnavailableError:
                if self._keys is None:
                    raise
                return self._keys
            if self._keys is None or self._keys.url != address:
                self._keys = ProviderKeys(address)
            return self._keys

    def _describe(self) -> Mapping[str, Any]:
        with self._lock:
            return self._describe_locked()

    def _describe_locked(self) -> Mapping[str, Any]:
        """Return the provider's published description; raises IdentityProviderUnavailableError."""
        description = self._described.get(self._issuer)
        if description is None:
            description = read_description(self._issuer)
            self._described[self._issuer] = description
        return description

    def _open_client(self) -> "OAuth2Client":
        # Late: it takes a third of a second, and most workers have no provider.
        from authlib.integrations.httpx_client import OAuth2Client

        return OAuth2Client(
            self._client_id,
            self._client_secret,
            # A public client proves itself by PKCE alone.
            token_endpoint_auth_method="client_secret_basic" if self._client_secret else "none",
            scope=SCOPES,
            redirect_uri=self._redirect_uri,
            code_challenge_method="S256",
            timeout=TIMEOUT_SECONDS,
        )


def read_description(issuer: str) -> Mapping[str, Any]:
    """Return what a provider publishes of itself; raises IdentityProviderUnavailableError."""
    address = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
    try:
        answer = httpx.get(address, timeout=TIMEOUT_SECONDS)
        answer.raise_for_status()
        described: Mapping[str, Any] = answer.json()
        needed = ("authorization_endpoint", "token_endpoint", "jwks_uri")
        usable = described["issuer"] == issuer and all(described[name] for name in needed)
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        log.error("identity provider not described", cause=type(error).__name__)
        raise IdentityProviderUnavailableError("its description cannot be read") from None
    if not usable:
        raise IdentityProviderUnavailableError("its description names another issuer")
    return described


def open_provider(settings: Settings) -> OpenIdProvider | None:
    """Return the provider of the settings; None where none is set."""
    return OpenIdProvider(settings) if settings.oidc_issuer is not None else None
