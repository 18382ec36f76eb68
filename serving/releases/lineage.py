"""The origin of a release from its registered manifest: read once, kept in memory."""

import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from cachetools import LRUCache
from pydantic import ValidationError

from mlruns_config.manifest import (
    MANIFEST_FILE,
    MANIFEST_HASH_TAG,
    RELEASE_MODEL,
    ReleaseManifest,
)
from serving.releases.registry import Registry, RegistryUnavailableError

#: Manifests kept at hand; a passport may ask for any release that ever answered.
MANIFEST_CACHE_SIZE = 32


@dataclass(frozen=True)
class RegisteredManifest:
    """A manifest as it was registered; `is_as_registered` compares its hash with the tag."""

    version: int
    manifest: ReleaseManifest
    sha256: str
    is_as_registered: bool


class ManifestReader:
    """Reads manifests from the registry; a version never changes, so each is read once."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._lock = threading.Lock()
        self._known: LRUCache[int, RegisteredManifest] = LRUCache(MANIFEST_CACHE_SIZE)

    def read(self, version: int) -> RegisteredManifest | None:
        """Return a release's manifest, None while the registry does not give a usable one."""
        with self._lock:
            registered = self._known.get(version)
        if registered is None:
            registered = self._fetch(version)
            if registered is not None:
                with self._lock:
                    self._known[version] = registered
        return registered

    def _fetch(self, version: int) -> RegisteredManifest | None:
        with TemporaryDirectory(prefix="mhras-manifest-") as folder:
            path = Path(folder) / MANIFEST_FILE
            try:
                self._registry.download(RELEASE_MODEL, version, MANIFEST_FILE, path)
                registered = self._registry.read_tag(RELEASE_MODEL, version, MANIFEST_HASH_TAG)
                manifest = ReleaseManifest.model_validate_json(path.read_bytes())
            except (RegistryUnavailableError, ValidationError):
                return None
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return RegisteredManifest(version, manifest, digest, digest == registered)
