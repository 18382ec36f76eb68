"""What is in a drop: the files of the contract in a folder or under an object-store prefix."""

import gzip
import hashlib
import logging
import posixpath
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any, BinaryIO, cast

from fsspec.core import url_to_fs

from flows.sources.batch import UnreadableFileError
from flows.sources.contract import TABLES

CHUNK_BYTES = 1 << 20

# These write the names of opened files, which may be people's, to the log at level DEBUG.
for _library in ("fsspec", "s3fs", "aiobotocore", "botocore"):
    logging.getLogger(_library).setLevel(logging.INFO)

#: `surveys.csv`, `surveys.csv.gz`, `surveys-0001.parquet`; or any part in a folder `surveys/`.
TABLE_FILE = re.compile(rf"({'|'.join(TABLES)})(?:[._-]\d+)?\.(csv|csv\.gz|parquet)")
TABLE_PART = re.compile(r"[^/]*\.(csv|csv\.gz|parquet)")
FHIR_FILE = re.compile(r".*\.(ndjson|ndjson\.gz|json|json\.gz|zip)")
#: Names that Bulk Data servers give, which say nothing about a person.
BULK_TYPES = (
    "AllergyIntolerance|CarePlan|CareTeam|Claim|Condition|Consent|Coverage|Device|"
    "DiagnosticReport|DocumentReference|Encounter|ExplanationOfBenefit|Goal|ImagingStudy|"
    "Immunization|Location|Medication|MedicationAdministration|MedicationRequest|Observation|"
    "Organization|Patient|Practitioner|PractitionerRole|Procedure|Provenance|Questionnaire|"
    "QuestionnaireResponse|ServiceRequest"
)
BULK_FILE = re.compile(rf"(?:{BULK_TYPES})(?:[._-]?\d{{1,6}})*\.ndjson(?:\.gz)?")


class EmptyDropError(ValueError):
    """A drop without one file of the contract, or none at all."""


@dataclass(frozen=True)
class SourceFile:
    """One file of a drop.

    `label` names it in messages and in the quarantine. It is the file's own name where the
    contract or Bulk Data prescribes it; other names may hold a person's (Synthea's do), so
    such files are called by the digest of their content (sha256sum finds them).
    """

    url: str
    label: str
    digest: str
    table: str | None
    format: str


@dataclass(frozen=True)
class Drop:
    """The files of a drop, how many others there are, and what could not be opened."""

    files: list[SourceFile]
    others: int
    errors: list[str] = field(default_factory=list)

    def of_table(self, table: str) -> list[SourceFile]:
        return [file for file in self.files if file.table == table]

    @property
    def fhir(self) -> list[SourceFile]:
        return [file for file in self.files if file.table is None]


def find_files(drop: str) -> Drop:
    """Look for files of the contract below `drop`, a folder or an s3:// prefix.

    Hidden files and folders (`.x`, `_x`) and files of other names are left alone.
    Raises EmptyDropError when nothing is there to read.
    """
    file_system, root = url_to_fs(drop)
    if not file_system.isdir(root):
        raise EmptyDropError("the drop is not a folder or prefix that exists")
    paths = sorted(path for path in file_system.find(root) if not _is_hidden(path, root))
    known = [path for path in paths if classify_name(path) is not None]
    if not known:
        raise EmptyDropError(
            f"the drop holds no file of the input contract ({len(paths)} others); "
            "flows/sources/README.md names them"
        )
    found = Drop(files=[], others=len(paths) - len(known))
    for path in known:
        try:
            found.files.append(_describe_file(file_system.unstrip_protocol(path)))
        except (FileNotFoundError, PermissionError) as error:
            found.errors.append(f"{_name_plainly(path)}: cannot be opened ({type(error).__name__})")
    return found


def classify_name(path: str) -> tuple[str | None, str] | None:
    """Return (table, format) of a file by its name, table None for FHIR; None if neither."""
    folder, name = posixpath.split(path)
    match = TABLE_FILE.fullmatch(name)
    if match:
        return match[1], match[2]
    part = TABLE_PART.fullmatch(name)
    if part and posixpath.basename(folder) in TABLES:
        return posixpath.basename(folder), part[1]
    fhir = FHIR_FILE.fullmatch(name)
    return (None, fhir[1]) if fhir else None


@contextmanager
def open_file(file: SourceFile) -> Iterator[BinaryIO]:
    """Open for reading, decompressed; a broken gzip or zip is an UnreadableFileError."""
    file_system, path = url_to_fs(file.url)
    with file_system.open(path, "rb") as raw:
        try:
            yield cast(BinaryIO, gzip.GzipFile(fileobj=raw) if file.format.endswith(".gz") else raw)
        except (EOFError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error) as error:
            raise UnreadableFileError(
                f"{file.label}: the compressed stream is damaged or ends early"
            ) from error


@contextmanager
def open_members(file: SourceFile) -> Iterator[Iterator[tuple[str, IO[bytes]]]]:
    """Open a FHIR file for (format, stream) of it, or of each resource file in a zip."""
    with open_file(file) as stream:
        if file.format != "zip":
            yield iter([(file.format.removesuffix(".gz"), cast(IO[bytes], stream))])
            return
        with _open_zip(file, stream) as archive:
            yield _iterate_archive(archive)


def _iterate_archive(archive: zipfile.ZipFile) -> Iterator[tuple[str, IO[bytes]]]:
    for name in sorted(archive.namelist()):
        if name.endswith((".json", ".ndjson")):
            with archive.open(name) as member:
                yield name.rsplit(".", 1)[1], member


def _open_zip(file: SourceFile, stream: Any) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(stream)
    except zipfile.BadZipFile as error:
        raise UnreadableFileError(f"{file.label}: is not a readable zip archive") from error


def _describe_file(url: str) -> SourceFile:
    table, format_ = cast(tuple[str | None, str], classify_name(url))
    digest = _digest(url)
    label = _name_plainly(url, f"{table or 'fhir'}-{digest[:12]}.{format_}")
    return SourceFile(url=url, label=label, digest=digest, table=table, format=format_)


def _name_plainly(path: str, otherwise: str = "a file") -> str:
    """Return a file's own name if that cannot be a person's."""
    name = posixpath.basename(path)
    return name if TABLE_FILE.fullmatch(name) or BULK_FILE.fullmatch(name) else otherwise


def _digest(url: str) -> str:
    file_system, path = url_to_fs(url)
    digest = hashlib.sha256()
    with file_system.open(path, "rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _is_hidden(path: str, root: str) -> bool:
    return any(part.startswith((".", "_")) for part in posixpath.relpath(path, root).split("/"))
