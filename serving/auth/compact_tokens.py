"""The canonical form of a token: compact JWS, as RFC 7515 and RFC 7519 define it.

JSON and base64 readers forgive much (repeated names, byte order marks, padding, spare bits), so
two readers can take one token for two. Whatever is not canonical is refused before its signature
is checked.
"""

import base64
import binascii
import json
import re
from typing import Any

from serving.errors import UnauthenticatedError
from serving.http.strict_json import read_strictly

COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
#: Far above the length of any real token.
MAX_LENGTH = 16_384
TIMES = ("exp", "nbf", "iat")


def require_canonical_token(token: str) -> None:
    """Raise UnauthenticatedError unless a token is written canonically and its times are numbers.

    Names stand once, base64url has no padding and no spare bits, the JSON is UTF-8 without a byte
    order mark.
    """
    if len(token) > MAX_LENGTH or not COMPACT.fullmatch(token):
        raise UnauthenticatedError("the token is not valid")
    header, payload, signature = token.split(".")
    try:
        _read_object(header)
        claims = _read_object(payload)
        _decode_canonically(signature)
    except (binascii.Error, UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise UnauthenticatedError("the token is not valid") from None
    if any(not _is_number(claims[name]) for name in TIMES if name in claims):
        raise UnauthenticatedError("the times of the token are not numbers")


def _read_object(part: str) -> dict[str, Any]:
    parsed = read_strictly(_decode_canonically(part))
    if not isinstance(parsed, dict):
        raise json.JSONDecodeError("not an object", "", 0)
    return parsed


def _decode_canonically(part: str) -> bytes:
    raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != part:
        raise binascii.Error("spare bits")
    return raw


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
