"""The clinic's own ids of people looked up lately, kept in the browser alone.

A pseudonym cannot be turned back, and the clinic's id is never stored here. So the browser keeps
the last ids that its user typed, in a cookie that ends with the session, and pages show the id
beside the pseudonym it belongs to. Decision: infra/adr/0061-own-ids-stay-in-the-browser.md.
"""

import base64
import binascii
import json

from fastapi import Request, Response

from serving.console.access import set_cookie
from serving.http.individual import hash_identifier
from serving.settings import Settings

KNOWN_IDS = "mhras-known-ids"
#: A cookie holds 4,096 bytes; the last so many ids that fit are kept.
MOST_IDS = 20
MOST_BYTES = 3500


def read_known_ids(request: Request, settings: Settings) -> dict[str, str]:
    """Return the ids that this browser keeps, by pseudonym, oldest first."""
    own_ids = _decode(request.cookies.get(KNOWN_IDS, ""))
    return {hash_identifier(own_id, settings): own_id for own_id in own_ids}


def remember_id(
    request: Request, response: Response, anonymized_id: str, own_id: str, settings: Settings
) -> None:
    """Keep an id that was typed just now in the browser, the oldest giving way."""
    known_ids = read_known_ids(request, settings)
    known_ids.pop(anonymized_id, None)
    ids = [*known_ids.values(), own_id][-MOST_IDS:]
    while len(_encode(ids)) > MOST_BYTES and len(ids) > 1:
        ids = ids[1:]
    set_cookie(response, KNOWN_IDS, _encode(ids), settings)


def _encode(ids: list[str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(ids).encode()).decode().rstrip("=")


def _decode(cookie: str) -> list[str]:
    """Return the ids in a cookie; none for one that this console did not write."""
    try:
        padded = cookie.encode("ascii") + b"=" * (-len(cookie) % 4)
        ids = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError):
        return []
    if not isinstance(ids, list):
        return []
    return [entry for entry in ids if isinstance(entry, str) and 0 < len(entry) <= 128][-MOST_IDS:]
