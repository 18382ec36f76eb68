"""The first rows of a CSV: how it is separated, what its columns are, where its rows begin.

What is unambiguous is read (semicolons, `sep=`, capitals and blanks in names, columns without a
name, Qualtrics' two extra rows); else the message says what to change.
"""

import csv
import re
from dataclasses import dataclass

from feature_repo.instruments import ITEM_COLUMNS
from flows.sources.batch import UnreadableFileError
from flows.sources.contract import TABLES, Table
from flows.sources.drop import SourceFile, open_file

#: A header and the rows that show how a file is written are shorter than this.
HEAD_BYTES = 1 << 16
#: Rows that are looked at for fields beyond the header.
SAMPLE_ROWS = 20

SEPARATORS = (",", ";", "\t", "|")
SEPARATOR_LINE = re.compile(r"sep=(.)", re.IGNORECASE)
QUALTRICS = "ImportId"
#: What other tools call a person's id; never taken for it by guess.
OTHER_IDS = re.compile(
    r"(?:record|subject|participant|patient|study|response|user)_?id|id|externalreference",
    re.IGNORECASE,
)
OTHER_ITEMS = re.compile(r"(phq|gad)_?\d?_?(?:item)?_?\d{1,2}", re.IGNORECASE)
#: Names of columns that a report may repeat.
PLAIN_NAME = re.compile(r"(?=.{1,40}$)[a-z]+[0-9]*(?:_[a-z0-9]+)*")


@dataclass(frozen=True)
class Header:
    """How a CSV is written: `names` of its columns (unique), and lines before its first row."""

    names: list[str]
    separator: str
    lines: int
    newline: bytes


def read_header(file: SourceFile) -> Header:
    """Return the header of a CSV, or raise for a file that is empty."""
    with open_file(file) as stream:
        start = stream.read(HEAD_BYTES)
    newline = b"\n" if b"\n" in start or b"\r" not in start else b"\r"
    lines = start.decode("utf-8-sig", errors="replace").split(newline.decode())
    lines = [line.removesuffix("\r") for line in lines[: SAMPLE_ROWS + 4]]
    stated = SEPARATOR_LINE.fullmatch(lines[0].strip().strip('"'))
    skipped = 1 if stated else 0
    if len(lines) <= skipped or not lines[skipped].strip():
        raise UnreadableFileError(f"{file.label}: is empty, not even a header is there")
    separator = stated[1] if stated else _find_separator(lines[0])
    names = next(csv.reader([lines[skipped]], delimiter=separator))
    extra = 2 if any(QUALTRICS in line for line in lines[skipped + 1 : skipped + 3]) else 0
    first = skipped + 1 + extra
    names = _pad(names, lines[first : first + SAMPLE_ROWS], separator)
    return Header(_name_uniquely(file, names), separator, first, newline)


def _find_separator(header: str) -> str:
    return max(SEPARATORS, key=lambda separator: header.count(separator))


def _pad(names: list[str], rows: list[str], separator: str) -> list[str]:
    """Add a nameless column where every row ends in more separators than the header."""
    sampled = list(csv.reader(filter(None, rows), delimiter=separator))
    surplus = {len(row) - len(names) for row in sampled if not any(row[len(names) :])}
    if len(surplus) == 1 and len(sampled) > 1 and sampled[0][len(names) :]:
        return names + [""] * surplus.pop()
    return names


def _name_uniquely(file: SourceFile, names: list[str]) -> list[str]:
    """Return the names as the contract writes them; a column without a name gets none of its."""
    plain = [name.strip().lower() for name in names]
    doubled = sorted({name for name in plain if name and plain.count(name) > 1})
    if doubled:
        raise UnreadableFileError(f"{file.label}: column {', '.join(doubled)} is there twice")
    return [name or f"(column {number})" for number, name in enumerate(plain, 1)]


def choose_columns(file: SourceFile, present: list[str]) -> list[str]:
    """Return the columns to read, or raise naming those that are missing and why they may be."""
    table = TABLES[str(file.table)]
    needed = ("person_id", *table.required)
    missing = [name for name in needed if name not in present]
    if missing:
        raise UnreadableFileError(
            f"{file.label}: required column {', '.join(missing)} is missing "
            f"(the table {table.name} needs {', '.join(needed)})"
            + "".join(f"; {hint}" for hint in _list_hints(present, missing))
        )
    return [name for name in list_columns(table) if name in present]


def _list_hints(present: list[str], missing: list[str]) -> list[str]:
    hints = []
    other = next((name for name in present if OTHER_IDS.fullmatch(name)), None)
    if "person_id" in missing and other:
        hints.append(f"rename {other} to person_id if it is the person's id")
    items = [name for name in present if OTHER_ITEMS.fullmatch(name)]
    if items:
        hints.append(
            f"{items[0]} looks like an item: name items {ITEM_COLUMNS[0]}, {ITEM_COLUMNS[1]} … "
            "and add the columns instrument and answered_at"
        )
    return hints


def list_columns(table: Table) -> tuple[str, ...]:
    return ("person_id", *table.required, *table.optional)


def list_unknown(file: SourceFile, present: list[str]) -> list[str]:
    """Return the columns of a file that the contract does not contain.

    A name that is not in snake_case becomes `(unnamed)`: in a file without a header it may be a
    person's.
    """
    columns = list_columns(TABLES[str(file.table)])
    unknown = {name for name in set(present) - set(columns) if not name.startswith("(column ")}
    return sorted({name if PLAIN_NAME.fullmatch(name) else "(unnamed)" for name in unknown})
