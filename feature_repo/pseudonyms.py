"""Keyed pseudonyms of individuals.

A pseudonym is HMAC-SHA-256 of the person's identifier under `ANONYMIZATION_SALT`.
It is keyed because a plain salted hash of a seven-digit identifier is enumerated in
seconds by anyone who has the salt. The result is still personal data.
"""

import hmac
import re
import unicodedata

PSEUDONYM_LENGTH = 32
PSEUDONYM_PATTERN = re.compile(r"[0-9a-f]{32}")

#: The deployment guide requires 256 bit.
MINIMUM_SALT_BYTES = 32

#: How many hash buckets the lake and the flows divide individuals into.
BUCKET_COUNT = 16


class WeakSaltError(ValueError):
    """The salt is shorter than 256 bit."""


def normalise_identifier(person_id: str, *, folds_case: bool = False) -> str:
    """Return an identifier in NFKC, without format characters and surrounding white space.

    NFKC writes full-width digits as plain ones. Upper and lower case stay apart unless
    `folds_case`: in some organisations they are two people.
    """
    if not person_id.isascii():
        seen = "".join(char for char in person_id if unicodedata.category(char) != "Cf")
        person_id = unicodedata.normalize("NFKC", seen)
    if folds_case:
        person_id = unicodedata.normalize("NFKC", person_id.casefold())
    return person_id.strip()


def pseudonymise(person_id: str, salt: str, *, folds_case: bool = False) -> str:
    """Return the pseudonym of `person_id`: 32 lower-case hex characters.

    Surrounding white space, characters that are not seen (a byte order mark, a zero-width
    space), their width and the way in which accents are composed do not count as part of an
    identifier, so that one person does not become two by how a file was made. With `folds_case`
    neither does the difference of upper and lower case. Raises ValueError where nothing is left.
    """
    identifier = normalise_identifier(person_id, folds_case=folds_case)
    if not identifier:
        raise ValueError("person_id is empty")
    digest = hmac.digest(_key(salt), b"mhras:individual:" + identifier.encode(), "sha256")
    return digest.hex()[:PSEUDONYM_LENGTH]


def hide_reference(reference: str, salt: str) -> str:
    """Return a keyed hash of what names a resource or a device: 16 hex characters.

    Such a name may hold a person's (`Anna's watch`), and links an individual to the source.
    """
    digest = hmac.digest(_key(salt), b"mhras:reference:" + reference.encode(), "sha256")
    return digest.hex()[:16]


def derive_key_id(salt: str) -> str:
    """Return eight hex characters that name the salt without revealing it."""
    return hmac.digest(_key(salt), b"mhras:key-id", "sha256").hex()[:8]


def assign_bucket(anonymized_id: str) -> int:
    """Return the hash bucket (0 to BUCKET_COUNT - 1) of a pseudonym."""
    return int(anonymized_id[:4], 16) % BUCKET_COUNT


def _key(salt: str) -> bytes:
    key = salt.encode()
    if len(key) < MINIMUM_SALT_BYTES:
        raise WeakSaltError(
            f"ANONYMIZATION_SALT has {len(key)} bytes, at least {MINIMUM_SALT_BYTES} are needed: "
            "openssl rand -base64 32"
        )
    return key
