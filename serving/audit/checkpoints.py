"""Signed heads of the audit chain, kept outside the database: in a folder or a bucket.

A hash chain alone does not show that its tail was cut off or that all of it was written
anew; a checkpoint that whoever rules the database cannot reach or forge does. Use a bucket
with object lock where one is to be had.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec.core
from fsspec.implementations.local import LocalFileSystem

#: Documents of the newest checkpoints that a verification reads; one proves all rows before it.
NEWEST = 100

_NAME = re.compile(r"checkpoint-(\d{15})\.json")


class CheckpointStoreError(Exception):
    """The store cannot be read or written; the message names the kind of failure only."""


class CheckpointStore:
    """A folder or s3:// prefix of one JSON document per checkpoint; nothing is ever replaced."""

    def __init__(self, url: str) -> None:
        self._url = url

    def list_positions(self) -> list[int]:
        """Return the chain positions that have a checkpoint, in order."""
        with _name_failures():
            fs, root = self._open()
            if not fs.exists(root):
                return []
            names = [path.rpartition("/")[2] for path in fs.ls(root, detail=False, refresh=True)]
        matches = [_NAME.fullmatch(name) for name in names]
        return sorted(int(match.group(1)) for match in matches if match)

    def read(self, position: int) -> dict[str, Any] | None:
        """Return a document as it is stored; None when it is no JSON object."""
        with _name_failures():
            fs, root = self._open()
            content = fs.cat_file(self._locate(root, position))
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            return None
        return document if isinstance(document, dict) else None

    def write(self, position: int, document: dict[str, Any]) -> None:
        """Store a document, complete or not at all."""
        with _name_failures():
            fs, root = self._open()
            if isinstance(fs, LocalFileSystem):
                # Only a folder is made: a mistyped bucket would be one without object lock.
                fs.makedirs(root, exist_ok=True)
            # Local files appear by rename, objects by the end of their upload.
            with fs.transaction, fs.open(self._locate(root, position), "wb") as file:
                file.write(json.dumps(document, indent=2, sort_keys=True).encode() + b"\n")

    def _open(self) -> tuple[Any, str]:
        fs, root = fsspec.core.url_to_fs(self._url)
        return fs, str(root).rstrip("/")

    def _locate(self, root: str, position: int) -> str:
        return f"{root}/checkpoint-{position:015d}.json"


@contextmanager
def _name_failures() -> Iterator[None]:
    """Turn what a file system or an object store raises into CheckpointStoreError."""
    try:
        yield
    # fsspec raises OSError and its S3 backend botocore's errors; they share no narrower base.
    except Exception as error:
        raise CheckpointStoreError(type(error).__name__) from error
