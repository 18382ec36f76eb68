"""CSV and Parquet files of a drop, in batches of bounded size."""

import codecs
import csv
from collections.abc import Iterator
from dataclasses import dataclass, field

import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet
from fsspec.core import url_to_fs

from flows.sources.batch import Batch, Rejected, UnreadableFileError
from flows.sources.contract import TABLES, Table
from flows.sources.drop import CHUNK_BYTES, SourceFile, open_file
from flows.sources.pseudonymise import PersonKey

#: Rows of a Parquet batch, and bytes of a CSV batch (some 150,000 wearable days).
BATCH_ROWS = 150_000
BATCH_BYTES = 8 << 20

#: A header is shorter than this.
HEADER_BYTES = 1 << 16


def read_delimited(file: SourceFile, key: PersonKey) -> Iterator[Batch]:
    """Yield the rows of a CSV or Parquet file with pseudonyms in place of person_id.

    `row_number` counts as a spreadsheet does: a CSV's header is row 1; the first row of
    a Parquet file is 1. Raises UnreadableFileError, before the first batch, for a file that
    is empty, not UTF-8 or lacks a required column.
    """
    reader = _read_parquet if file.format == "parquet" else _read_csv
    for batch in reader(file):
        batch.rows = {name: key.replace_identifiers(rows) for name, rows in batch.rows.items()}
        yield batch


def list_unknown_columns(file: SourceFile) -> list[str]:
    """Return the columns of a file which the contract does not know and nobody reads."""
    return sorted(set(_read_columns(file)) - set(_known_columns(TABLES[str(file.table)])))


def _read_columns(file: SourceFile) -> list[str]:
    if file.format == "parquet":
        with _open_parquet(file) as parquet:
            return list(parquet.schema_arrow.names)
    return _read_header(file)


def _known_columns(table: Table) -> tuple[str, ...]:
    return ("person_id", *table.required, *table.optional)


def _choose_columns(file: SourceFile, present: list[str]) -> list[str]:
    """Return the columns to read, or raise naming those that are missing or doubled."""
    table = TABLES[str(file.table)]
    needed = ("person_id", *table.required)
    missing = [name for name in needed if name not in present]
    if missing:
        raise UnreadableFileError(
            f"{file.label}: required column {', '.join(missing)} is missing "
            f"(the table {table.name} needs {', '.join(needed)})"
        )
    doubled = sorted({name for name in present if present.count(name) > 1})
    if doubled:
        raise UnreadableFileError(f"{file.label}: column {', '.join(doubled)} is there twice")
    return [name for name in _known_columns(table) if name in present]


def _open_parquet(file: SourceFile) -> pa_parquet.ParquetFile:
    file_system, path = url_to_fs(file.url)
    try:
        return pa_parquet.ParquetFile(file_system.open(path, "rb"))
    except pa.ArrowInvalid as error:
        raise UnreadableFileError(f"{file.label}: is not a readable Parquet file") from error


def _read_parquet(file: SourceFile) -> Iterator[Batch]:
    with _open_parquet(file) as parquet:
        columns = _choose_columns(file, list(parquet.schema_arrow.names))
        first = 1
        try:
            for chunk in parquet.iter_batches(BATCH_ROWS, columns=columns):
                rows = pl.DataFrame(pa.Table.from_batches([chunk]))
                yield _number_rows(file, rows, range(first, first + rows.height))
                first += rows.height
        except (pa.ArrowInvalid, OSError) as error:
            raise UnreadableFileError(
                f"{file.label}: cannot be read after row {first - 1}"
            ) from error


def _number_rows(file: SourceFile, rows: pl.DataFrame, numbers: range | list[int]) -> Batch:
    numbered = rows.with_columns(row_number=pl.Series(numbers, dtype=pl.Int64))
    return Batch(rows.height, {str(file.table): numbered})


def _read_csv(file: SourceFile) -> Iterator[Batch]:
    _check_encoding(file)
    columns = _choose_columns(file, _read_header(file))
    ragged = _RaggedRows(file)
    with open_file(file) as stream:
        reader = pa_csv.open_csv(
            stream,
            # One thread: only then does Arrow say which row is ragged.
            read_options=pa_csv.ReadOptions(block_size=BATCH_BYTES, use_threads=False),
            parse_options=pa_csv.ParseOptions(
                newlines_in_values=True, invalid_row_handler=ragged.note
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(columns, pa.string()),
                include_columns=columns,
                strings_can_be_null=True,
                null_values=[""],
            ),
        )
        try:
            for chunk in reader:
                rows = pl.DataFrame(pa.Table.from_batches([chunk]))
                _refuse_line_breaks(file, rows, ragged.next_number)
                batch = _number_rows(file, rows, ragged.number_rows(rows.height))
                yield ragged.report(batch)
        except pa.ArrowInvalid as error:
            raise UnreadableFileError(
                f"{file.label}: cannot be read after row {ragged.next_number - 1}"
            ) from error
        yield ragged.report(Batch(records=0))


@dataclass
class _RaggedRows:
    """Rows with too few or too many fields: which, and so the number of every other."""

    file: SourceFile
    seen: set[int] = field(default_factory=set)
    pending: list[Rejected] = field(default_factory=list)
    next_number: int = 2

    def note(self, row: pa_csv.InvalidRow) -> str:
        reason = f"has {row.actual_columns} fields, the header {row.expected_columns}"
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


def _check_encoding(file: SourceFile) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    lines = quotes = 0
    with open_file(file) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            quotes += chunk.count(b'"')
            try:
                lines += decoder.decode(chunk).count("\n")
            except UnicodeDecodeError as error:
                row = lines + error.object[: error.start].count(b"\n") + 1
                raise UnreadableFileError(
                    f"{file.label}: row {row}{_name_column(file, error, row)} is not UTF-8"
                ) from None
    if decoder.getstate()[0]:
        raise UnreadableFileError(f"{file.label}: row {lines + 1} is not UTF-8")
    if quotes % 2:
        raise UnreadableFileError(f"{file.label}: a quote is opened and never closed")


def _name_column(file: SourceFile, error: UnicodeDecodeError, row: int) -> str:
    if row == 1:
        return " (the header)"
    _, newline, line = error.object[: error.start].rpartition(b"\n")
    names = _read_header(file)
    position = line.count(b",")
    # A line cut by the chunk's start, or with quotes, does not tell which column it is.
    if not newline or b'"' in line or position >= len(names):
        return ""
    return f", column {names[position]},"


def _read_header(file: SourceFile) -> list[str]:
    with open_file(file) as stream:
        line = stream.read(HEADER_BYTES).split(b"\n")[0].decode("utf-8-sig")
    if not line.strip():
        raise UnreadableFileError(f"{file.label}: is empty, not even a header is there")
    return next(csv.reader([line]))
