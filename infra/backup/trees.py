"""Trees of files (a folder or s3:// prefix) packed into one tar file, and unpacked again."""

import tarfile
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec.core

DELTA_LOG = "_delta_log"


def pack_tree(url: str, target: Path) -> int:
    """Pack every file below `url`; return how many.

    The logs of Delta tables are listed before their data, so every file that a packed log names
    is there, whoever writes meanwhile.
    """
    fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
    root = str(root).rstrip("/")
    logs = [path for path in _find(fs, root) if DELTA_LOG in PurePosixPath(path).parts]
    data = [path for path in _find(fs, root) if DELTA_LOG not in PurePosixPath(path).parts]
    with tarfile.open(target, "w") as archive:
        for path in sorted([*logs, *data]):
            _add(archive, fs, path, path[len(root) :].lstrip("/"))
    return len(logs) + len(data)


def unpack_tree(archive: Path, folder: Path) -> int:
    """Unpack into a folder; names that would leave it are refused. Return how many files."""
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
        return len(packed.getmembers())


def put_tree(folder: Path, url: str) -> None:
    """Copy what was unpacked to where it belongs."""
    fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            target = f"{str(root).rstrip('/')}/{path.relative_to(folder).as_posix()}"
            fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            fs.put_file(str(path), target)


def is_empty(url: str) -> bool:
    fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
    return not _find(fs, str(root))


def _find(fs: Any, root: str) -> list[str]:
    # A mounted ConfigMap is links to a hidden folder; each file is taken once, by its own name.
    found = fs.find(root) if fs.exists(root) else []
    return [path for path in found if "/..data" not in path and "/..2" not in path]


def _add(archive: tarfile.TarFile, fs: Any, path: str, name: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = int(fs.size(path))
    entry.mode = 0o600
    with fs.open(path, "rb") as file:
        archive.addfile(entry, file)
