"""CSV and Parquet files of a drop, batch by batch, without a person's identifier.

Memory stays flat whatever the size of a file. Arrow reads the CSV, because it alone of the
readers tried says which rows have too few or too many fields, instead of filling or cutting
them.
"""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, cast

import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from flows.sources.batch import Batch, Rejected, UnreadableFileError
from flows.sources.drop import CHUNK_BYTES, SourceFile, open_file
from flows.sources.headers import Header, choose_columns, list_unknown, read_header
from flows.sources.parse import MISSING_TOKENS
from flows.sources.pseudonymise import PersonKey, RoundedIdentifierError

#: Rows of a Parquet batch, and bytes of a CSV batch (some 150,000 wearable days).
BATCH_ROWS = 150_000
BATCH_BYTES = 8 << 20

#: A number as a spreadsheet writes it where semicolons separate: 7,5 for 7.5.
DECIMAL_COMMA = r"^\s*(-?\d+),(\d+)\s*$"
#: Bytes that Windows-1252 gives to the letters of western Europe.
WINDOWS_LETTERS = re.compile(rb"[\xc0-\xff]")


def read_delimited(file: SourceFile, key: PersonKey) -> Iterator[Batch]:
    """Yield the rows of a CSV or Parquet file with pseudonyms in place of person_id.

    `row_number` counts as a spreadsheet does: a CSV's header is row 1; the first row of
    a Parquet file is 1. Raises UnreadableFileError, before the first batch, for a file that
    is empty, not UTF-8 or lacks a required column, and later for ids that were rounded.
    """
    reader = _read_parquet if file.format == "parquet" else _read_csv
    for batch in reader(file):
        try:
            batch.rows = {name: key.replace_identifiers(rows) for name, rows in batch.rows.items()}
        except RoundedIdentifierError as error:
            raise UnreadableFileError(f"{file.label}: {error}") from error
        yield batch


def list_unknown_columns(file: SourceFile) -> list[str]:
    """Return the columns of a file that the contract does not contain."""
    return list_unknown(file, _read_columns(file))


def _read_columns(file: SourceFile) -> list[str]:
    if file.format == "parquet":
        with open_file(file) as stream:
            return [name.lower() for name in _open_parquet(file, stream).schema_arrow.names]
    return read_header(file).names


def _open_parquet(file: SourceFile, stream: BinaryIO) -> pa_parquet.ParquetFile:
    try:
        return pa_parquet.ParquetFile(stream)
    except (pa.ArrowInvalid, OSError) as error:
        raise UnreadableFileError(f"{file.label}: is not a readable Parquet file") from error


def _read_parquet(file: SourceFile) -> Iterator[Batch]:
    with open_file(file) as stream:
        parquet = _open_parquet(file, stream)
        written = {name.strip().lower(): name for name in parquet.schema_arrow.names}
        columns = choose_columns(file, list(written))
        first = 1
        try:
            for chunk in parquet.iter_batches(BATCH_ROWS, columns=[written[c] for c in columns]):
                rows = pl.DataFrame(pa.Table.from_batches([chunk])).rename(
                    {written[name]: name for name in columns}
                )
                yield _number_rows(file, rows, range(first, first + rows.height))
                first += rows.height
        except (pa.ArrowException, OSError) as error:
            raise UnreadableFileError(
                f"{file.label}: cannot be read after row {first - 1}"
            ) from error


def _number_rows(file: SourceFile, rows: pl.DataFrame, numbers: range | list[int]) -> Batch:
    numbered = rows.with_columns(row_number=pl.Series(numbers, dtype=pl.Int64))
    return Batch(rows.height, {str(file.table): numbered})


def _read_csv(file: SourceFile) -> Iterator[Batch]:
    header = read_header(file)
    _check_encoding(file, header)
    columns = choose_columns(file, header.names)
    ragged = _RaggedRows(file, len(header.names), header.lines + 1)
    with open_file(file) as stream:
        reader = _open_csv(_with_newlines(stream, header), header, columns, ragged)
        try:
            for chunk in reader:
                rows = _read_decimal_commas(pl.DataFrame(pa.Table.from_batches([chunk])), header)
                _refuse_line_breaks(file, rows, ragged.next_number)
                batch = _number_rows(file, rows, ragged.number_rows(rows.height))
                yield ragged.report(batch)
        except pa.ArrowInvalid as error:
            raise UnreadableFileError(
                f"{file.label}: cannot be read after row {ragged.next_number - 1}"
            ) from error
        yield ragged.report(Batch(records=0))


def _open_csv(
    stream: BinaryIO, header: Header, columns: list[str], ragged: "_RaggedRows"
) -> pa_csv.CSVStreamingReader:
    return pa_csv.open_csv(
        stream,
        # One thread: only then does Arrow say which row is ragged.
        read_options=pa_csv.ReadOptions(
            block_size=BATCH_BYTES,
            use_threads=False,
            column_names=header.names,
            skip_rows=header.lines,
        ),
        parse_options=pa_csv.ParseOptions(
            delimiter=header.separator, newlines_in_values=True, invalid_row_handler=ragged.note
        ),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict.fromkeys(columns, pa.string()),
            include_columns=columns,
            strings_can_be_null=True,
            null_values=["", *MISSING_TOKENS],
        ),
    )


class _Newlines:
    """A stream of a file whose lines end in a carriage return alone, with line feeds instead."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        return self._stream.read(size).replace(b"\r", b"\n")

    def close(self) -> None:
        self.closed = True

    def readable(self) -> bool:
        return True


def _with_newlines(stream: BinaryIO, header: Header) -> BinaryIO:
    return stream if header.newline == b"\n" else cast(BinaryIO, _Newlines(stream))


def _read_decimal_commas(rows: pl.DataFrame, header: Header) -> pl.DataFrame:
    if header.separator != ";":
        return rows
    named = [name for name in rows.columns if name != "person_id"]
    return rows.with_columns(pl.col(named).str.replace(DECIMAL_COMMA, "$1.$2"))


@dataclass
class _RaggedRows:
    """Rows with too few or too many fields: which, and so the number of every other."""

    file: SourceFile
    width: int
    next_number: int
    seen: set[int] = field(default_factory=set)
    pending: list[Rejected] = field(default_factory=list)

    def note(self, row: pa_csv.InvalidRow) -> str:
        reason = f"has {row.actual_columns} fields, the header {self.width}"
        self.pending.append(Rejected(str(self.file.table), row.number, reason))
        self.seen.add(row.number)
        return "skip"

    def number_rows(self, count: int) -> list[int]:
        numbers: list[int] = []
        while len(numbers) < count:
            if self.next_number not in self.seen:
                numbers.append(self.next_number)
            self.next_number += 1
        return numbers

    def report(self, batch: Batch) -> Batch:
        batch.rejected, self.pending = self.pending, []
        batch.records += len(batch.rejected)
        return batch


def _refuse_line_breaks(file: SourceFile, rows: pl.DataFrame, first: int) -> None:
    # A stray quote makes one value of all rows up to the next quote: they would be lost.
    broken = pl.any_horizontal(pl.col(pl.String).str.contains(r"[\r\n]")).fill_null(False)
    if rows.filter(broken).height:
        raise UnreadableFileError(
            f"{file.label}: cannot be read after row {first - 1}: a value holds a line break, "
            "so a quote is missing or too many"
        )


def _check_encoding(file: SourceFile, header: Header) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    lines = quotes = 0
    with open_file(file) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            quotes += chunk.count(b'"')
            try:
                lines += decoder.decode(chunk).count("\n")
            except UnicodeDecodeError as error:
                row = lines + error.object[: error.start].count(b"\n") + 1
                place = f"row {row}{_name_column(header, error, row)}"
                raise UnreadableFileError(
                    f"{file.label}: {place} is not UTF-8{_guess_encoding(error)}"
                ) from None
    if decoder.getstate()[0]:
        raise UnreadableFileError(f"{file.label}: row {lines + 1} is not UTF-8")
    if quotes % 2:
        _refuse_open_quote(file, header)


def _guess_encoding(error: UnicodeDecodeError) -> str:
    if error.object[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "; it is UTF-16: save it as CSV UTF-8"
    if WINDOWS_LETTERS.match(error.object[error.start : error.start + 1]):
        return "; it may be Windows-1252 (cp1252): save it as CSV UTF-8"
    return ""


def _refuse_open_quote(file: SourceFile, header: Header) -> None:
    """Refuse a file with a quoted value that never ends; a quote inside a value opens none."""
    separator = header.separator.encode()
    opened = 0
    with open_file(file) as stream:
        for number, line in enumerate(stream, 1):
            still_open = _leaves_open(line, separator, bool(opened))
            opened = (opened or number) if still_open else 0
    if opened:
        raise UnreadableFileError(
            f"{file.label}: a quote is opened and never closed (in row {opened})"
        )


def _leaves_open(line: bytes, separator: bytes, is_open: bool) -> bool:
    for piece in line.rstrip(b"\r\n").split(separator):
        if not is_open and piece.startswith(b'"'):
            piece, is_open = piece[1:], True
        if is_open and piece.replace(b'""', b"").endswith(b'"'):
            is_open = False
    return is_open


def _name_column(header: Header, error: UnicodeDecodeError, row: int) -> str:
    if row <= header.lines:
        return " (the header)"
    _, newline, line = error.object[: error.start].rpartition(b"\n")
    position = line.count(header.separator.encode())
    # A line cut by the chunk's start, or with quotes, does not tell which column it is.
    if not newline or b'"' in line or position >= len(header.names):
        return ""
    return f", column {header.names[position]},"
