"""Ed25519 signatures of documents that must be provable without this system.

Who holds the public key can check a checkpoint of the audit chain or an erasure's receipt.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from serving.settings import Settings, decode_key, split_keys

Document = Mapping[str, Any]


class Signer:
    """Signs with one private key; `key_id` names it without revealing anything."""

    def __init__(self, seed: str) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(decode_key(seed))
        raw = self._key.public_key().public_bytes_raw()
        self.public_key = base64.b64encode(raw).decode()
        self.key_id = derive_key_id(raw)

    def sign(self, document: Document) -> dict[str, Any]:
        """Return the document with the key's id and the signature of both."""
        named = dict(document) | {"key_id": self.key_id}
        signature = self._key.sign(canonicalise(named))
        return named | {"signature": base64.b64encode(signature).decode()}


class KeyRing:
    """The public keys whose signatures count: the one in use and retired ones."""

    def __init__(self, public_keys: Iterable[str]) -> None:
        raw_keys = [decode_key(key) for key in public_keys]
        self._keys = {
            derive_key_id(raw): Ed25519PublicKey.from_public_bytes(raw) for raw in raw_keys
        }

    def holds(self, document: Document) -> bool:
        """Return True if a document carries a valid signature of one of the keys."""
        key = self._keys.get(str(document.get("key_id")))
        if key is None:
            return False
        signed = {name: value for name, value in document.items() if name != "signature"}
        try:
            signature = base64.b64decode(str(document.get("signature")), validate=True)
            key.verify(signature, canonicalise(signed))
        # What is no base64, and a document that has no canonical form, such as one with NaN.
        except (InvalidSignature, ValueError, RecursionError):
            return False
        return True


def canonicalise(document: Document) -> bytes:
    """Return the one byte sequence of a JSON document: keys in order, no white space."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode()


def derive_key_id(public_key: bytes) -> str:
    return hashlib.sha256(b"mhras:key-id:" + public_key).hexdigest()[:16]


def make_key_ring(settings: Settings) -> KeyRing:
    """Return the public keys whose signatures are accepted: the present and retired ones."""
    present = Signer(settings.audit_signing_key.get_secret_value()).public_key
    return KeyRing([present, *split_keys(settings.audit_retired_keys)])
