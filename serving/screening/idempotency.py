"""Requests that may be sent again: the same key and body get the same answer, once recorded.

A key is claimed before the request is begun and answered in the transaction that records the
prediction, so a repetition never screens twice, whichever worker it reaches. Keys are stored as
HMACs: a caller may name a request by a person's identifier or date of birth.
"""

import hashlib
import hmac
from datetime import timedelta
from typing import Any

from sqlalchemy import Engine, text

from serving.errors import IdempotencyMismatchError, RequestInFlightError

#: How long a key is remembered.
LIFETIME = timedelta(hours=24)

_FORGET = text("DELETE FROM idempotency_keys WHERE claimed_at < now() - :lifetime")
# A claim without an answer after `patience` belongs to a worker that died.
_CLAIM = text(
    """
INSERT INTO idempotency_keys (user_id, key, body_hash, claimed_at)
VALUES (:user_id, :key, :body_hash, clock_timestamp())
ON CONFLICT (user_id, key) DO UPDATE SET claimed_at = excluded.claimed_at
WHERE idempotency_keys.answer IS NULL
  AND idempotency_keys.body_hash = excluded.body_hash
  AND idempotency_keys.claimed_at < clock_timestamp() - :patience
RETURNING key
"""
)
_FIND = text(
    "SELECT body_hash, answer FROM idempotency_keys WHERE user_id = :user_id AND key = :key"
)
_GIVE_UP = text(
    "DELETE FROM idempotency_keys WHERE user_id = :user_id AND key = :key AND answer IS NULL"
)


def hash_key(key: str, secret: str) -> str:
    """Return what is stored of a key: its HMAC-SHA-256, 64 hexadecimal digits."""
    return hmac.new(secret.encode(), b"idempotency key\n" + key.encode(), "sha256").hexdigest()


def hash_body(anonymized_id: str, body: str) -> str:
    """Return the SHA-256 of a request by pseudonym; `body` holds no identifier."""
    return hashlib.sha256(f"{anonymized_id}\n{body}".encode()).hexdigest()


def claim_key(
    engine: Engine, user_id: str, key: str, body_hash: str, patience: timedelta
) -> dict[str, Any] | None:
    """Return the answer that was given under a key, or None when the key is claimed now.

    Raises IdempotencyMismatchError when the key belongs to another body, and
    RequestInFlightError while the first request is running (for `patience` at most).
    """
    names = {"user_id": user_id, "key": key}
    with engine.begin() as connection:
        connection.execute(_FORGET, {"lifetime": LIFETIME})
        values = names | {"body_hash": body_hash, "patience": patience}
        if connection.execute(_CLAIM, values).first() is not None:
            return None
        claim = connection.execute(_FIND, names).first()
    if claim is None:
        raise RequestInFlightError("the first request with this key has just failed; send it again")
    if claim.body_hash != body_hash:
        raise IdempotencyMismatchError("this idempotency key was used for another request")
    if claim.answer is None:
        raise RequestInFlightError("the first request with this key is still being answered")
    answer: dict[str, Any] = claim.answer
    return answer


def give_up_key(engine: Engine, user_id: str, key: str) -> None:
    """Forget a claim whose request was not answered, so that it can be sent again."""
    with engine.begin() as connection:
        connection.execute(_GIVE_UP, {"user_id": user_id, "key": key})
