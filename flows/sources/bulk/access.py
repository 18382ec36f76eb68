"""Requests to a FHIR server as a backend service: signed assertions, tokens, patient retries.

SMART App Launch 2.2, Backend Services: the client signs an assertion with its own key and gets a
token for some minutes. Servers answer random 5xx and ask for waits in seconds or as a date; both
are kept to.
"""

import random
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import jwt

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
#: An assertion lives for at most five minutes.
ASSERTION_SECONDS = 240
#: A new token is requested this long before the old one ends.
TOKEN_MARGIN_SECONDS = 30

#: Attempts at one request that meets 5xx or a cut connection, and the longest wait between them.
ATTEMPTS = 6
LONGEST_BACKOFF_SECONDS = 60.0
TIMEOUT = httpx.Timeout(60.0, read=300.0)


class BulkServerError(RuntimeError):
    """The server did not deliver a resource; the message names it and the status, never a token."""


@dataclass(frozen=True)
class Client:
    """The client at the server: its id, private key (PEM), key id and algorithm."""

    client_id: str
    private_key: str
    key_id: str
    algorithm: str = "RS384"
    scope: str = "system/*.rs"


@dataclass
class Access:
    """Requests to one server under one client; `wait` sleeps some seconds."""

    server: str
    client: Client
    wait: Callable[[float], None] = time.sleep
    _token: str = ""
    _token_ends: float = 0.0
    _token_endpoint: str = ""
    _http: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=TIMEOUT))

    def close(self) -> None:
        self._http.close()

    def send(
        self, method: str, url: str, may_be: tuple[int, ...] = (), **options: Any
    ) -> httpx.Response:
        """Return a response that is a success or has a status of `may_be`.

        Tries again after 5xx, a cut connection, and once with a new token after 401. Raises
        BulkServerError when that does not help.
        """
        for attempt in range(ATTEMPTS):
            try:
                response = self._http.request(method, url, **self._authorise(options))
            except httpx.TransportError as error:
                self._back_off(method, url, attempt, type(error).__name__, None)
                continue
            if response.is_success or response.status_code in may_be:
                return response
            if response.status_code == httpx.codes.UNAUTHORIZED and attempt == 0:
                self._token = ""
                continue
            if not response.is_server_error:
                break
            self._back_off(method, url, attempt, str(response.status_code), response)
        raise BulkServerError(f"{method} {_name(url)} was answered {response.status_code}")

    @contextmanager
    def stream(self, url: str, with_token: bool) -> Iterator[httpx.Response]:
        """Open a file to download; raises httpx.TransportError or BulkServerError."""
        options = self._authorise({}) if with_token else {}
        headers = {"Accept": "application/fhir+ndjson"} | options.get("headers", {})
        with self._http.stream("GET", url, headers=headers) as response:
            if response.status_code == httpx.codes.UNAUTHORIZED:
                self._token = ""
            if not response.is_success:
                raise BulkServerError(f"GET {_name(url)} was answered {response.status_code}")
            yield response

    def back_off(self, attempt: int, response: httpx.Response | None = None) -> None:
        """Wait before another attempt: as long as the server requires, else longer each time."""
        asked = read_retry_after(response) if response is not None else None
        backoff = min(LONGEST_BACKOFF_SECONDS, 2.0**attempt) * random.uniform(0.5, 1.0)
        self.wait(backoff if asked is None else asked)

    def _back_off(
        self, method: str, url: str, attempt: int, cause: str, response: httpx.Response | None
    ) -> None:
        if attempt == ATTEMPTS - 1:
            raise BulkServerError(f"{method} {_name(url)}: {cause} in {ATTEMPTS} attempts")
        self.back_off(attempt, response)

    def _authorise(self, options: dict[str, Any]) -> dict[str, Any]:
        headers = options.get("headers", {}) | {"Authorization": f"Bearer {self._get_token()}"}
        return options | {"headers": headers}

    def _get_token(self) -> str:
        if not self._token or time.monotonic() > self._token_ends:
            answer = self._request_token()
            self._token = str(answer["access_token"])
            lifetime = float(answer.get("expires_in", 300))
            self._token_ends = time.monotonic() + lifetime - TOKEN_MARGIN_SECONDS
        return self._token

    def _request_token(self) -> dict[str, Any]:
        endpoint = self._find_token_endpoint()
        form = {
            "grant_type": "client_credentials",
            "scope": self.client.scope,
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": _sign(self.client, endpoint),
        }
        response = self._send_plainly("POST", endpoint, data=form)
        if not response.is_success:
            raise BulkServerError(f"no token: the server answered {response.status_code}")
        return dict(response.json())

    def _find_token_endpoint(self) -> str:
        if not self._token_endpoint:
            url = f"{self.server}/.well-known/smart-configuration"
            response = self._send_plainly("GET", url, headers={"Accept": "application/json"})
            if not response.is_success:
                raise BulkServerError(f"{_name(url)} was answered {response.status_code}")
            self._token_endpoint = str(response.json()["token_endpoint"])
        return self._token_endpoint

    def _send_plainly(self, method: str, url: str, **options: Any) -> httpx.Response:
        """Send without a token, again after 5xx and cut connections."""
        for attempt in range(ATTEMPTS):
            try:
                response = self._http.request(method, url, **options)
            except httpx.TransportError as error:
                self._back_off(method, url, attempt, type(error).__name__, None)
                continue
            if not response.is_server_error:
                return response
            self._back_off(method, url, attempt, str(response.status_code), response)
        raise AssertionError("the last attempt returns or raises")


def _sign(client: Client, endpoint: str) -> str:
    now = int(time.time())
    claims = {
        "iss": client.client_id,
        "sub": client.client_id,
        "aud": endpoint,
        "exp": now + ASSERTION_SECONDS,
        "jti": str(uuid.uuid4()),
    }
    headers = {"kid": client.key_id, "typ": "JWT"}
    return jwt.encode(claims, client.private_key, algorithm=client.algorithm, headers=headers)


def read_retry_after(response: httpx.Response) -> float | None:
    """Return the seconds of a response's Retry-After: a number, or until an HTTP date."""
    text = response.headers.get("Retry-After", "").strip()
    if not text:
        return None
    if text.replace(".", "", 1).isdigit():
        return float(text)
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def _name(url: str) -> str:
    """Return a URL without its query, which may hold identifiers."""
    return url.partition("?")[0]
