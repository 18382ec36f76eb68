"""Encryption with age: a public key is enough to write, only the private one reads.

age authenticates what it encrypts: a changed or cut file is refused as a whole.
"""

from pathlib import Path

import pyrage
from pyrage import x25519


class EncryptionError(RuntimeError):
    """A key is not one, or does not open a file, or the file was changed."""


def make_key_pair() -> tuple[str, str]:
    """Return a new public and private key as text."""
    identity = x25519.Identity.generate()
    return str(identity.to_public()), str(identity)


def parse_recipients(stated: str) -> list[x25519.Recipient]:
    """Return the public keys of a comma-separated list; raises EncryptionError if one is none."""
    keys = [key.strip() for key in stated.split(",") if key.strip()]
    if not keys:
        raise EncryptionError("BACKUP_RECIPIENTS is empty: `python -m infra.backup keygen`")
    try:
        return [x25519.Recipient.from_str(key) for key in keys]
    except pyrage.RecipientError as error:
        raise EncryptionError("BACKUP_RECIPIENTS holds something that is no age key") from error


def read_identity(path: Path | None) -> x25519.Identity:
    """Return the private key of a file; lines that begin with # are comments.

    Raises EncryptionError where it holds none.
    """
    if path is None:
        raise EncryptionError("BACKUP_IDENTITY_FILE is not set: the file with the private key")
    try:
        lines = path.read_text().splitlines()
        return x25519.Identity.from_str(next(line for line in lines if line.startswith("AGE-")))
    except (OSError, StopIteration, pyrage.IdentityError) as error:
        raise EncryptionError(f"{path} holds no age private key") from error


def encrypt_file(source: Path, target: Path, recipients: list[x25519.Recipient]) -> None:
    pyrage.encrypt_file(str(source), str(target), recipients)


def decrypt_file(source: Path, target: Path, identity: x25519.Identity) -> None:
    """Decrypt; raises EncryptionError when the key does not fit or the file was changed."""
    try:
        pyrage.decrypt_file(str(source), str(target), [identity])
    # A wrong key is a DecryptError; a changed or cut file shows while it is read, as OSError.
    except (pyrage.DecryptError, OSError) as error:
        target.unlink(missing_ok=True)
        raise EncryptionError(f"{source.name}: wrong key, or the file was changed") from error
