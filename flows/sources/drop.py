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
from flows.sources.unpacking import check_member, check_size, unpack_gzip
from flows.sources.wearable_exports.places import find_reader

CHUNK_BYTES = 1 << 20

# These write the names of opened files, which may be people's, to the log at level DEBUG.
for _library in ("fsspec", "s3fs", "aiobotocore", "botocore"):
    logging.getLogger(_library).setLevel(logging.INFO)

_TABLE = "|".join(TABLES)
_FORMAT = r"csv|csv\.gz|parquet"
#: `surveys.csv`, `surveys.csv.gz`, `surveys-0001.parquet`, `Surveys_2024-01.CSV`,
#: `surveys (1).csv`; or any part in a folder `surveys/`, Hive's `surveys/year=2024/` included.
TABLE_FILE = re.compile(
    rf"({_TABLE})(?:[ ._-]*\(\d{{1,3}}\)|(?:[ ._-]\d+)+)?\.({_FORMAT})", re.IGNORECASE
)
TABLE_PART = re.compile(rf"[^/]*\.({_FORMAT})", re.IGNORECASE)
PARTITION = re.compile(r"[A-Za-z]\w*=[^/]*")
FHIR_FILE = re.compile(r".*\.(ndjson|ndjson\.gz|json|json\.gz|jsonl|zip)", re.IGNORECASE)
#: A name that only nearly is one of a table: another ending, or words behind the table's name.
NEAR_MISS = re.compile(rf"({_TABLE})\b.*|({_TABLE})[_ .-].*", re.IGNORECASE)
#: Names that Bulk Data servers give, which say nothing about a person.
BULK_TYPES = (
    "AllergyIntolerance|Bundle|CarePlan|CareTeam|Claim|Condition|Consent|Coverage|Device|"
    "DiagnosticReport|DocumentReference|Encounter|ExplanationOfBenefit|Goal|ImagingStudy|"
    "Immunization|Location|Medication|MedicationAdministration|MedicationDispense|"
    "MedicationRequest|MedicationStatement|Observation|Organization|Patient|Practitioner|"
    "PractitionerRole|Procedure|Provenance|Questionnaire|QuestionnaireResponse|ServiceRequest"
)
KNOWN_TYPES = frozenset(BULK_TYPES.split("|"))
BULK_FILE = re.compile(rf"(?:{BULK_TYPES})(?:[._-]?\d{{1,6}})*\.ndjson(?:\.gz)?", re.IGNORECASE)


class EmptyDropError(ValueError):
    """A drop without one file of the contract, or none at all."""


@dataclass(frozen=True)
class SourceFile:
    """One file of a drop, or one table in a zip of it (`member`).

    `label` names it in messages and in the quarantine. It is the file's own name where the
    contract or Bulk Data prescribes it; other names may hold a person's (Synthea's do), so
    such files are called by the digest of their content (sha256sum finds them). `reader` names
    the reader of a wearable export, None for tables and FHIR.
    """

    url: str
    label: str
    digest: str
    table: str | None
    format: str
    member: str | None = None
    reader: str | None = None


@dataclass(frozen=True)
class Drop:
    """The files of a drop, how many others there are, and what could not be opened."""

    files: list[SourceFile]
    others: int
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def fhir(self) -> list[SourceFile]:
        return [file for file in self.files if file.table is None and file.reader is None]


def find_files(drop: str) -> Drop:
    """Look for files of the contract below `drop`, a folder or an s3:// prefix.

    Hidden files and folders (`.x`, `_x`) are left alone; files of other names are counted, and
    those that are nearly named like a table are noted. Raises EmptyDropError when nothing is
    there to read.
    """
    file_system, root = url_to_fs(drop)
    if not file_system.isdir(root):
        raise EmptyDropError("the drop is not a folder or prefix that exists")
    paths = sorted(path for path in file_system.find(root) if not is_hidden(path, root))
    readable = [path for path in paths if classify_name(path) is not None or find_reader(path)]
    others = [path for path in paths if path not in set(readable)]
    if not readable:
        raise EmptyDropError(
            f"the drop holds no file of the input contract ({len(paths)} others); "
            "flows/sources/README.md names them"
        )
    contents = Drop(files=[], others=len(others), notes=_note_others(others))
    for path in readable:
        url = file_system.unstrip_protocol(path)
        try:
            contents.files.extend(_describe_files(url, root))
        except (FileNotFoundError, PermissionError) as error:
            contents.errors.append(
                f"{_name_plainly(path)}: cannot be opened ({type(error).__name__})"
            )
        except UnreadableFileError as error:
            contents.errors.append(str(error))
    return contents


def classify_name(path: str) -> tuple[str | None, str] | None:
    """Return (table, format) of a file by its name, table None for FHIR; None if neither."""
    folder, name = posixpath.split(path)
    match = TABLE_FILE.fullmatch(name)
    if match:
        return match[1].lower(), match[2].lower()
    part = TABLE_PART.fullmatch(name)
    while PARTITION.fullmatch(posixpath.basename(folder)):
        folder = posixpath.dirname(folder)
    if part and posixpath.basename(folder).lower() in TABLES:
        return posixpath.basename(folder).lower(), part[1].lower()
    fhir = FHIR_FILE.fullmatch(name)
    return (None, fhir[1].lower().replace("jsonl", "ndjson")) if fhir else None


def _note_others(paths: list[str]) -> list[str]:
    """Return a note for each file that is nearly named like a table; its words stay out of it."""
    notes = []
    for path in paths:
        match = NEAR_MISS.match(posixpath.basename(path))
        if match:
            table = (match[1] or match[2]).lower()
            ending = posixpath.splitext(path)[1].lower()
            shown = ending if re.fullmatch(r"\.[a-z0-9]{1,5}", ending) else "(no ending)"
            notes.append(
                f"a {shown} file whose name begins with {table} was passed over: "
                f"name it {table}.csv or {table}.parquet, or number it as {table}_2.csv"
            )
    return notes


@contextmanager
def open_file(file: SourceFile) -> Iterator[BinaryIO]:
    """Open for reading, decompressed; a broken gzip or zip is an UnreadableFileError."""
    file_system, path = url_to_fs(file.url)
    size = file_system.size(path)
    check_size(size, file.label)
    with file_system.open(path, "rb") as raw, _name_damage(file):
        if file.member is None:
            yield _decompress(file.format, raw, size, file.label)
        else:
            with _open_zip(file, raw) as archive:
                entry = check_member(archive, file.member, file.label)
                with archive.open(entry) as member:
                    yield _decompress(file.format, member, entry.file_size, file.label)


def _decompress(format_: str, stream: Any, size: int, label: str) -> BinaryIO:
    packed = format_ == "gz" or format_.endswith(".gz")
    return unpack_gzip(stream, size, label) if packed else cast(BinaryIO, stream)


@contextmanager
def _name_damage(file: SourceFile) -> Iterator[None]:
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error) as error:
        raise UnreadableFileError(
            f"{file.label}: the compressed stream is damaged or ends early"
        ) from error
    except NotImplementedError as error:
        raise UnreadableFileError(
            f"{file.label}: is compressed by a method that is not read; zip it with deflate"
        ) from error
    except RuntimeError as error:
        if "encrypted" not in str(error) and "password" not in str(error):
            raise
        raise UnreadableFileError(
            f"{file.label}: is encrypted; decrypt it before it is put into the drop"
        ) from error


@contextmanager
def open_members(file: SourceFile) -> Iterator[Iterator[tuple[str, IO[bytes]]]]:
    """Open a FHIR file for (format, stream) of it, or of each resource file in a zip."""
    with open_file(file) as stream:
        if file.format != "zip":
            yield iter([(file.format.removesuffix(".gz"), cast(IO[bytes], stream))])
            return
        with _open_zip(file, stream) as archive:
            yield _iterate_archive(archive, file.label)


def _iterate_archive(archive: zipfile.ZipFile, label: str) -> Iterator[tuple[str, IO[bytes]]]:
    for name, (table, format_) in list_members(archive):
        if table is None and format_ != "zip":
            entry = check_member(archive, name, label)
            with archive.open(entry) as member:
                stream = cast(IO[bytes], _decompress(format_, member, entry.file_size, label))
                yield format_.removesuffix(".gz"), stream


def list_members(archive: zipfile.ZipFile) -> list[tuple[str, tuple[str | None, str]]]:
    """Return (name, (table, format)) of the files of the contract in an archive.

    Hidden ones are left alone, as in a folder: `__MACOSX/._x.json` is no JSON.
    """
    names = sorted(name for name in archive.namelist() if not is_hidden(name, ""))
    classified = [(name, classify_name(name)) for name in names]
    return [(name, kind) for name, kind in classified if kind is not None]


def _open_zip(file: SourceFile, stream: Any) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(stream)
    except zipfile.BadZipFile as error:
        raise UnreadableFileError(f"{file.label}: is not a readable zip archive") from error


def _describe_files(url: str, root: str) -> Iterator[SourceFile]:
    """Yield a file; of a zip its FHIR part as one, and each table in it."""
    reader = find_reader(posixpath.relpath(url_to_fs(url)[1], root))
    table, format_ = classify_name(url) or (None, posixpath.splitext(url)[1].lstrip(".").lower())
    if reader:
        # A name says nothing of a table here, only how the file is packed.
        table, format_ = None, "gz" if url.lower().endswith(".gz") else format_.split(".")[0]
    digest = _digest(url)
    label = _name_plainly(url, f"{reader or table or 'fhir'}-{digest[:12]}.{format_}")
    file = SourceFile(url, label, digest, table, format_, reader=reader)
    if format_ != "zip" or reader:
        yield file
        return
    try:
        with open_file(file) as stream, _open_zip(file, stream) as archive:
            members = list_members(archive)
            names = [name for name in archive.namelist() if not name.endswith("/")]
    except UnreadableFileError:
        yield file  # reading it meets the same error, and reports it
        return
    tables = [(name, kind) for name, kind in members if kind[0] is not None]
    if len(tables) < len(members) or not tables:
        yield file
    if not members:
        raise UnreadableFileError(
            f"{label}: holds no file of the contract ({len(names)} others); "
            "zip tables as surveys.csv and FHIR as .ndjson or .json"
        )
    for name, (table, kind) in tables:
        inner = f"{label} > {_name_plainly(name, f'{table}-{digest[:12]}.{kind}')}"
        yield SourceFile(url, inner, digest, table, kind, member=name)


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


def is_hidden(path: str, root: str) -> bool:
    """Return True for a path with a part that begins with a dot or an underscore."""
    below = posixpath.relpath(path, root) if root else path
    return any(part.startswith((".", "_")) for part in below.split("/"))
