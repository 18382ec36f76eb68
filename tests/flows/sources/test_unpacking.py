"""A small archive that unpacks to a large volume is refused by name, and stops no other file."""

import gzip
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.sources import unpacking
from flows.sources.batch import UnreadableFileError
from flows.sources.drop import find_files, open_file, open_members
from flows.sources.unpacking import ALWAYS_ALLOWED_BYTES, MAX_FILE_BYTES, MOST_RATIO, find_limit

ZEROS = b"\0" * (8 * 1024 * 1024)


@pytest.fixture(autouse=True)
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "ALWAYS_ALLOWED_BYTES", 1024 * 1024)


def test_a_gzip_of_zeros_is_refused_while_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "surveys.csv.gz").write_bytes(gzip.compress(ZEROS))
    (file,) = find_files(str(tmp_path)).files
    with (
        open_file(file) as stream,
        pytest.raises(UnreadableFileError, match=r"surveys\.csv\.gz: unpacks to more than 200"),
    ):
        stream.read()


def test_a_plain_file_above_the_limit_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "MAX_FILE_BYTES", 1024**3)
    with (tmp_path / "surveys.csv").open("wb") as large:
        large.truncate(1024**3 + 1)
    (file,) = find_files(str(tmp_path)).files
    with (
        pytest.raises(UnreadableFileError, match=r"surveys\.csv: is larger than 1 GiB; split it"),
        open_file(file),
    ):
        pass


@pytest.mark.parametrize("name", ["Patient.ndjson", "surveys.csv"])
def test_a_zip_of_zeros_is_refused_before_it_is_read(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "export.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, ZEROS)
    (file,) = find_files(str(tmp_path)).files
    with pytest.raises(UnreadableFileError, match="unpacks to more than"):
        read_whole(file)


def test_a_gzip_in_a_zip_is_refused_too(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        archive.writestr("Patient.ndjson.gz", gzip.compress(ZEROS))
    (file,) = find_files(str(tmp_path)).files
    with pytest.raises(UnreadableFileError, match="unpacks to more than"):
        read_whole(file)


def read_whole(file) -> bytes:
    if file.member is not None:
        with open_file(file) as stream:
            return stream.read()
    with open_members(file) as members:
        return b"".join(stream.read() for _, stream in members)


def test_an_ordinary_archive_is_read_whole(tmp_path: Path) -> None:
    lines = b"".join(b'{"resourceType": "Patient", "id": "%d"}\n' % one for one in range(50_000))
    with zipfile.ZipFile(tmp_path / "export.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("Patient.ndjson", lines)
    (file,) = find_files(str(tmp_path)).files

    assert read_whole(file) == lines


@given(st.integers(0, 10**12))
def test_the_limit_grows_with_the_packed_size(packed: int) -> None:
    assert find_limit(packed) >= min(MOST_RATIO * packed, MAX_FILE_BYTES)
    assert find_limit(packed) <= MAX_FILE_BYTES
    assert find_limit(packed + 1) >= find_limit(packed)
    assert ALWAYS_ALLOWED_BYTES == 64 * 1024 * 1024
