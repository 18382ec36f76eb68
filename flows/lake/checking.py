"""The checked rows of a drop's files, counted; bad ones in the quarantine with their place."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl
import pyarrow as pa

from feature_repo.fhir_values import Context
from flows.lake.report import IngestionReport
from flows.lake.tables import QUARANTINE_SCHEMA, append_quarantine
from flows.sources.batch import Batch, UnreadableFileError
from flows.sources.clean import WITHDRAWALS, Checked, check_rows
from flows.sources.contract import INSTANT, TABLES, Table
from flows.sources.delimited import read_delimited
from flows.sources.drop import Drop, SourceFile
from flows.sources.fhir import read_fhir
from flows.sources.pseudonymise import PersonKey
from flows.sources.wearable_exports.files import read_export

#: What a broken file makes libraries raise besides what readers expect of it.
BROKEN_FILE_ERRORS = (
    pl.exceptions.PolarsError,
    pa.ArrowException,
    UnicodeError,
    RecursionError,
    ArithmeticError,
)


@dataclass(frozen=True)
class Run:
    """What every step of one ingestion needs to know."""

    run_id: str
    now: datetime
    lake_url: str
    staging: Path
    key: PersonKey
    drop: Drop
    context: Context


def iterate_checked(
    run: Run, report: IngestionReport, source: int, file: SourceFile, consents: bool
) -> Iterator[tuple[Table, Checked]]:
    """Yield checked rows by table; count records, quarantine bad ones, note a bad file.

    An error in one file ends that file alone.
    """
    try:
        for batch in _read_file(run, file, consents):
            _count_batch(run, report, file, batch)
            for name, rows in batch.rows.items():
                table = TABLES.get(name, WITHDRAWALS)
                checked = check_rows(table, rows, run.now)
                report.count(name).read += rows.height
                quarantine(run, report, file, table.name, checked.rejected)
                good = checked.good.with_columns(source=pl.lit(source, dtype=pl.Int32))
                yield table, Checked(good, checked.rejected, checked.unread, checked.scales)
    except UnreadableFileError as error:
        report.errors.append(str(error))
    except BROKEN_FILE_ERRORS as error:
        # The error's own words may hold values of the file.
        report.errors.append(f"{file.label}: cannot be read ({type(error).__name__})")


def _read_file(run: Run, file: SourceFile, consents: bool) -> Iterator[Batch]:
    if file.reader:
        return read_export(file, run.key)
    if file.table:
        return read_delimited(file, run.key)
    return read_fhir(file, run.key, run.context, consents)


def _count_batch(run: Run, report: IngestionReport, file: SourceFile, batch: Batch) -> None:
    report.records += batch.records
    report.split += batch.split
    report.ignored.update(batch.ignored)
    report.noted.update(batch.noted)
    report.notes.extend(note for note in batch.notes if note not in report.notes)
    report.retractions.extend(batch.retractions)
    report.deaths.extend(batch.deaths)
    report.alive.extend(batch.alive)
    for table in sorted({rejected.table for rejected in batch.rejected}):
        rows = [
            (rejected.row_number, rejected.reason)
            for rejected in batch.rejected
            if rejected.table == table
        ]
        schema = {"row_number": pl.Int64, "reason": pl.String}
        report.count(table).read += len(rows)
        quarantine(run, report, file, table, pl.DataFrame(rows, schema=schema, orient="row"))


def quarantine(
    run: Run, report: IngestionReport, file: SourceFile, table: str, rejected: pl.DataFrame
) -> None:
    """Count rejected rows (row_number, reason) of a file and keep them with their place."""
    report.count(table).quarantined += rejected.height
    rows = rejected.with_columns(
        run_id=pl.lit(run.run_id),
        table=pl.lit(table),
        source_file=pl.lit(file.label),
        source_digest=pl.lit(file.digest),
        quarantined_at=pl.lit(run.now).cast(INSTANT),
    )
    append_quarantine(run.lake_url, rows.select(QUARANTINE_SCHEMA.keys()))


def quarantine_by_source(
    run: Run, report: IngestionReport, table: str, rejected: pl.DataFrame
) -> None:
    """Quarantine rows (source, row_number, reason) of several files."""
    for (source,), rows in rejected.partition_by("source", as_dict=True).items():
        file = run.drop.files[source]
        quarantine(run, report, file, table, rows.select("row_number", "reason"))
