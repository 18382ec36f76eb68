"""Signatures of releases: what is served was registered by the holder of a key of its own.

A login that writes to MLflow could replace a manifest together with its hash. The signature is
made at registration with RELEASE_SIGNING_KEY, which neither MLflow nor the API holds, and verified
with RELEASE_PUBLIC_KEYS before anything of a release is loaded.
"""

import json
from typing import Any

from mlruns_config.manifest import RELEASE_MODEL
from serving.audit.signing import KeyRing, Signer
from serving.settings import MissingSettingError, Settings, split_keys

SIGNATURE_TAG = "manifest.signature"
KIND = "mhras-release"


def sign_release(version: int, manifest_sha256: str, signer: Signer) -> str:
    """Return the tag's text: a signed document that names version and manifest."""
    return json.dumps(signer.sign(_describe(version, manifest_sha256)), sort_keys=True)


def is_signed(version: int, manifest_sha256: str, tag: str | None, keys: KeyRing) -> bool:
    """Return True if the tag is a signature of this version and this manifest by a known key."""
    try:
        document = json.loads(tag or "")
    except ValueError:
        return False
    if not isinstance(document, dict) or not keys.holds(document):
        return False
    expected = _describe(version, manifest_sha256)
    return expected.items() <= document.items()


def _describe(version: int, manifest_sha256: str) -> dict[str, Any]:
    return {
        "kind": KIND,
        "name": RELEASE_MODEL,
        "version": version,
        "manifest_sha256": manifest_sha256,
    }


def make_release_signer(settings: Settings) -> Signer | None:
    """Return the signer of releases, None where this process registers none."""
    seed = settings.release_signing_key
    return None if seed is None else Signer(seed.get_secret_value())


def make_release_keys(settings: Settings) -> KeyRing | None:
    """Return the keys whose releases are served; None, in development alone, accepts all.

    Raises MissingSettingError elsewhere.
    """
    keys = split_keys(settings.release_public_keys)
    if keys:
        return KeyRing(keys)
    if settings.is_development:
        return None
    raise MissingSettingError(
        "RELEASE_PUBLIC_KEYS: names no key whose releases may be served "
        "(`python -m serving.audit public-key --release` prints that of RELEASE_SIGNING_KEY)"
    )
