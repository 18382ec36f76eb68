"""Where backups lie: a folder or s3:// prefix with one folder for each, named by its moment."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec.core

MANIFEST = "manifest.json"
OBJECTS = "objects"
#: An object that no backup names is removed when it is older: a backup under way names none yet.
OBJECT_GRACE = timedelta(days=2)
_STAMP = "%Y%m%dT%H%M%SZ"
_NAME = re.compile(r"\d{8}T\d{6}Z")


class BackupStoreError(RuntimeError):
    """The store cannot be read or written, or a file differs from its manifest."""


class BackupStore:
    """Backups by moment. One counts only once its manifest, written last, is there."""

    def __init__(self, url: str) -> None:
        with _name_failures("BACKUP_URL"):
            self._fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
            self._root = str(root).rstrip("/")

    def list_moments(self) -> list[datetime]:
        """Return the moments of complete backups, oldest first."""
        with _name_failures("list"):
            names = self._list_folders()
            whole = [name for name in names if self._fs.exists(f"{self._root}/{name}/{MANIFEST}")]
        return sorted(parse_stamp(name) for name in whole)

    def _list_folders(self) -> list[str]:
        if not self._fs.exists(self._root):
            return []
        names = [path.rstrip("/").rpartition("/")[2] for path in self._fs.ls(self._root, False)]
        return [name for name in names if _NAME.fullmatch(name)]

    def put(self, moment: datetime, name: str, file: Path) -> None:
        """Store a file of a backup."""
        target = self._locate(moment, name)
        with _name_failures(name):
            self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            self._fs.put_file(str(file), target)

    def get(self, moment: datetime, name: str, file: Path, sha256: str) -> None:
        """Fetch a file of a backup; raises BackupStoreError when it has another hash."""
        with _name_failures(name):
            self._fs.get_file(self._locate(moment, name), str(file))
        if hash_file(file) != sha256:
            raise BackupStoreError(f"{name} differs from the manifest: it was changed")

    def write_manifest(self, moment: datetime, manifest: dict[str, Any]) -> None:
        with _name_failures(MANIFEST):
            target = self._locate(moment, MANIFEST)
            self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            self._fs.pipe_file(target, json.dumps(manifest, indent=1, sort_keys=True).encode())

    def read_manifest(self, moment: datetime) -> dict[str, Any]:
        with _name_failures(MANIFEST):
            manifest: dict[str, Any] = json.loads(self._fs.cat_file(self._locate(moment, MANIFEST)))
            return manifest

    def remove(self, moment: datetime) -> None:
        """Remove a backup, its manifest first: what is left of a removal cut off is no backup."""
        with _name_failures("remove"):
            self._fs.rm_file(self._locate(moment, MANIFEST))
            self._fs.rm(f"{self._root}/{name_moment(moment)}", recursive=True)

    def list_objects(self) -> dict[str, str]:
        """Return the hash of every stored object's content by its name."""
        with _name_failures(OBJECTS):
            folder = f"{self._root}/{OBJECTS}"
            paths = self._fs.find(folder) if self._fs.exists(folder) else []
        stems = [str(path).rpartition("/")[2].removesuffix(".age") for path in paths]
        return dict(stem.split("-", 1) for stem in stems if "-" in stem)

    def put_object(self, name: str, sha256: str, file: Path) -> None:
        """Store an object under its name and the hash of its plain content."""
        target = self._locate_object(name, sha256)
        with _name_failures(OBJECTS):
            self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            self._fs.put_file(str(file), target)

    def get_object(self, name: str, sha256: str, file: Path) -> None:
        with _name_failures(OBJECTS):
            self._fs.get_file(self._locate_object(name, sha256), str(file))

    def remove_objects(self, needed: set[str], now: datetime) -> int:
        """Remove the objects that no backup needs any more; return how many."""
        removed = 0
        for name, sha256 in self.list_objects().items():
            path = self._locate_object(name, sha256)
            if name in needed or now - self._read_time(path) < OBJECT_GRACE:
                continue
            with _name_failures(OBJECTS):
                self._fs.rm_file(path)
            removed += 1
        return removed

    def _read_time(self, path: str) -> datetime:
        with _name_failures(OBJECTS):
            modified: datetime = self._fs.modified(path)
        return modified if modified.tzinfo else modified.replace(tzinfo=UTC)

    def _locate_object(self, name: str, sha256: str) -> str:
        return f"{self._root}/{OBJECTS}/{name[:2]}/{name}-{sha256}.age"

    def _locate(self, moment: datetime, name: str) -> str:
        return f"{self._root}/{name_moment(moment)}/{name}"


def name_moment(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime(_STAMP)


def parse_stamp(name: str) -> datetime:
    return datetime.strptime(name, _STAMP).replace(tzinfo=UTC)


def hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _name_failures(what: str) -> Iterator[None]:
    """Turn what a file system or an object store raises into BackupStoreError."""
    try:
        yield
    # fsspec raises OSError, its S3 backend whatever botocore raises: no narrower base is shared.
    except Exception as error:
        raise BackupStoreError(f"backup store, {what}: {type(error).__name__}") from error
