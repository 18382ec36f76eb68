"""Trees of files (a folder or s3:// prefix), kept file by file: each is stored once.

Files of a Delta table and artifacts of a run are written once and never changed, so a night
stores what the day added. An object's name says of which version of which file it is, and what its
content hashes to; both are opaque to whoever reads the bucket.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import fsspec.core

from infra.backup.store import BackupStore, hash_file

DELTA_LOG = "_delta_log"

#: Encrypts a file to another.
Encrypt = Callable[[Path, Path], None]
#: Decrypts a file to another.
Decrypt = Callable[[Path, Path], None]


@dataclass(frozen=True)
class KeptFile:
    """A file of a tree: where it belongs, its size in bytes, the object that has its content."""

    path: str
    size: int
    object: str
    sha256: str


@dataclass(frozen=True)
class KeptTree:
    """The files of a tree, and how many of them were not in the store before."""

    files: list[KeptFile]
    added: int
    added_bytes: int


class TreeError(RuntimeError):
    """A tree cannot be read, or an object is not the file it was; names which."""


def keep_tree(url: str, name: str, store: BackupStore, encrypt: Encrypt) -> KeptTree:
    """Store every file below `url` that is not stored yet; return all of them.

    The logs of Delta tables are listed before their data, so every file that a kept log names
    is there, whoever writes meanwhile.
    """
    fs, root = _open(url)
    stored_objects = store.list_objects()
    kept, added, added_bytes = [], 0, 0
    for path, info in _list_logs_first(fs, root):
        relative = path[len(root) :].lstrip("/")
        key = _name_version(f"{name}/{relative}", info)
        if key not in stored_objects:
            stored_objects[key] = _store_file(fs, path, key, store, encrypt)
            added, added_bytes = added + 1, added_bytes + int(info["size"])
        kept.append(KeptFile(relative, int(info["size"]), key, stored_objects[key]))
    return KeptTree(kept, added, added_bytes)


def _store_file(fs: Any, path: str, key: str, store: BackupStore, encrypt: Encrypt) -> str:
    with TemporaryDirectory(prefix="mhras-backup-") as folder:
        plain, encrypted = Path(folder) / "plain", Path(folder) / "encrypted.age"
        fs.get_file(path, str(plain))
        sha256 = hash_file(plain)
        encrypt(plain, encrypted)
        store.put_object(key, sha256, encrypted)
    return sha256


def _name_version(place: str, info: dict[str, Any]) -> str:
    """Return a name for this content of this file: another size, ETag or time is another one."""
    version = info.get("ETag") or info.get("etag") or info.get("mtime")
    stated = json.dumps([place, info["size"], str(version)])
    return hashlib.sha256(stated.encode()).hexdigest()[:32]


def write_index(files: list[KeptFile], target: Path) -> None:
    """Write the files of a tree as JSON; its paths are for whoever holds the private key."""
    target.write_text(json.dumps([asdict(file) for file in files]))


def read_index(source: Path) -> list[KeptFile]:
    return [KeptFile(**file) for file in json.loads(source.read_text())]


@contextmanager
def open_object(file: KeptFile, store: BackupStore, decrypt: Decrypt) -> Iterator[Path]:
    """Give the decrypted file; raises TreeError when it is another than was kept."""
    with TemporaryDirectory(prefix="mhras-restore-") as folder:
        encrypted, plain = Path(folder) / "encrypted.age", Path(folder) / "plain"
        store.get_object(file.object, file.sha256, encrypted)
        decrypt(encrypted, plain)
        if hash_file(plain) != file.sha256:
            raise TreeError(f"{file.path} is another file than was backed up")
        yield plain


def put_tree(files: list[KeptFile], store: BackupStore, decrypt: Decrypt, url: str) -> None:
    """Write every file below `url`, one at a time."""
    fs, root = _open(url)
    for file in files:
        target = f"{root}/{_check_path(file.path)}"
        with open_object(file, store, decrypt) as plain:
            fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            fs.put_file(str(plain), target)


def _check_path(path: str) -> str:
    """Return a relative path; raises TreeError for one that would leave its tree."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts:
        raise TreeError(f"{path!r} would be written outside its tree")
    return path


def is_empty(url: str) -> bool:
    fs, root = _open(url)
    return not _find(fs, root)


def _open(url: str) -> tuple[Any, str]:
    fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
    return fs, str(root).rstrip("/")


def _list_logs_first(fs: Any, root: str) -> list[tuple[str, dict[str, Any]]]:
    logs = {p: info for p, info in _find(fs, root).items() if DELTA_LOG in PurePosixPath(p).parts}
    data = {p: i for p, i in _find(fs, root).items() if DELTA_LOG not in PurePosixPath(p).parts}
    return sorted((logs | data).items())


def _find(fs: Any, root: str) -> dict[str, dict[str, Any]]:
    # A mounted ConfigMap is links to a hidden folder; each file is taken once, by its own name.
    entries = fs.find(root, detail=True) if fs.exists(root) else {}
    return {path: i for path, i in entries.items() if "/..data" not in path and "/..2" not in path}
