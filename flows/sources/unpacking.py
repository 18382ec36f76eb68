"""Unpacks files of a drop within a limit: a small archive may hold a volume full of zeros."""

import gzip
import io
import zipfile
from typing import Any, BinaryIO, cast

from flows.sources.batch import UnreadableFileError

#: Unpacked bytes for each packed one. Exports of surveys and wearables reach 10 to 60, and DEFLATE
#: at most 1,032.
MOST_RATIO = 200
#: What a file may unpack to whatever its ratio.
ALWAYS_ALLOWED_BYTES = 64 * 1024 * 1024
#: What one file may be, plain or unpacked: 400 million rows of a CSV. Rows are read as a stream, so
#: the limit is of time: an export of this size takes most of a night.
MAX_FILE_BYTES = 64 * 1024**3
READ_BYTES = 1 << 20


class BoundedStream(io.RawIOBase):
    """The bytes of `inner`; raises UnreadableFileError beyond `most` of them."""

    def __init__(self, inner: Any, most: int, label: str) -> None:
        self._inner = inner
        self._left = most
        self._label = label

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer and return how many bytes; raises where the limit is passed."""
        data = self._inner.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise make_error(self._label)
        buffer[: len(data)] = data
        return len(data)


def find_limit(packed_bytes: int) -> int:
    """Return how many bytes a file of `packed_bytes` may unpack to."""
    return min(MAX_FILE_BYTES, max(ALWAYS_ALLOWED_BYTES, MOST_RATIO * packed_bytes))


def check_size(size: int, label: str) -> None:
    """Raise UnreadableFileError for a file above MAX_FILE_BYTES."""
    if size > MAX_FILE_BYTES:
        limit = MAX_FILE_BYTES // 1024**3
        raise UnreadableFileError(f"{label}: is larger than {limit} GiB; split it into parts")


def unpack_gzip(stream: Any, packed_bytes: int, label: str) -> BinaryIO:
    """Return what a gzip stream unpacks to, as a stream that ends in an error at the limit."""
    unpacked = gzip.GzipFile(fileobj=stream)
    bounded = BoundedStream(unpacked, find_limit(packed_bytes), label)
    return cast(BinaryIO, io.BufferedReader(bounded, READ_BYTES))


def check_member(archive: zipfile.ZipFile, name: str, label: str) -> zipfile.ZipInfo:
    """Return the entry of an archive's member; raises UnreadableFileError beyond the limit.

    Python's zipfile reads no more bytes of a member than its entry declares.
    """
    entry = archive.getinfo(name)
    if entry.file_size > find_limit(entry.compress_size):
        raise make_error(label)
    return entry


def make_error(label: str) -> UnreadableFileError:
    return UnreadableFileError(
        f"{label}: unpacks to more than {MOST_RATIO} times its size; unpack it, check it, and put "
        "the files into the drop"
    )
