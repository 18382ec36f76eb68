"""The first rows of a CSV: how it is separated, what its columns are, where its rows begin.

What is unambiguous is read (semicolons, `sep=`, capitals and blanks in names, columns without a
name, Qualtrics' two extra rows); else the message says what to change.
"""

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

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
#: Likeness, by difflib, from which a name is a misspelt one of the contract.
MIN_LIKENESS = 0.75


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
        columns = (_describe_column(name, plain.index(name) + 1) for name in doubled)
        raise UnreadableFileError(f"{file.label}: named twice in the header: {', '.join(columns)}")
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
    """Return the columns of a file that the contract does not contain, in their order.

    A name is repeated where it is made of words of the contract, or nearly is one of its names.
    Any other may be a person's name, so the column is given by its number, counting from 1.
    """
    columns = list_columns(TABLES[str(file.table)])
    return [
        _describe_column(name, number)
        for number, name in enumerate(present, 1)
        if name not in columns and not name.startswith("(column ")
    ]


def _describe_column(name: str, number: int) -> str:
    contract_columns = {column for table in TABLES.values() for column in list_columns(table)}
    is_like = get_close_matches(name, contract_columns, 1, MIN_LIKENESS)
    is_safe = bool(is_like) or _split_words([name]) <= _split_words(contract_columns)
    return name if is_safe else f"column {number}"


def _split_words(names: Iterable[str]) -> set[str]:
    """Return the words of names in snake_case, without their digits."""
    return {re.sub(r"[0-9]", "", word) for name in names for word in name.split("_")}
