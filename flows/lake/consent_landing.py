"""The consents of a drop: read, written to PostgreSQL, and what they deny ended."""

from typing import Any

import polars as pl
from sqlalchemy import Engine

from flows.lake.checking import Run, iterate_checked, quarantine_by_source
from flows.lake.consent_database import COLUMNS, DENIAL, GRANT, read_list
from flows.lake.consent_statements import (
    STATEMENTS,
    UNREAD,
    Applied,
    apply_statements,
    make_statements,
    write_list,
)
from flows.lake.joined import join_rows
from flows.lake.merging import MergeCounts
from flows.lake.moves import list_moved_consents
from flows.lake.parts import date_retractions, name_parts, read_retractions, schema_of_parts
from flows.lake.report import IngestionReport
from flows.lake.tables import scan_records
from flows.sources.clean import ORIGIN, WITHDRAWALS
from flows.sources.contract import CONSENTS, INSTANT, ColumnTypes, Table

WHOSE: ColumnTypes = {
    "anonymized_id": pl.String,
    "key_id": pl.String,
    "bucket": pl.Int32,
    "granted_at": INSTANT,
}


def land_consents(run: Run, engine: Engine) -> IngestionReport:
    """Write the grants of a drop to PostgreSQL, then end what is denied or replaced.

    A consent in a table file that cannot be read ends older ones as FHIR's does.
    """
    report = IngestionReport(run.run_id)
    grants, denials, unread = _read_consents(run, report)
    is_row = pl.col("source_id").is_null()
    rows = _join_table_rows(run, report, grants.filter(is_row))
    _remember_retractions(run, report)
    fhir = grants.filter(~is_row)
    statements = make_statements(fhir, denials, unread, report.deaths, run.now)
    moved = list_moved_consents(run.lake_url, statements)
    date_retractions(run.lake_url, [*moved, *report.alive], run.now)
    retractions = read_retractions(run.lake_url)
    applied = apply_statements(engine, run.lake_url, rows, statements, retractions, run.now)
    report.count(CONSENTS.name).add_merge(applied.rows)
    _count(report, CONSENTS.name, GRANT, applied.grants, applied)
    _count(report, WITHDRAWALS.name, DENIAL, applied.denials, applied)
    _count_unread(report, statements, unread.height)
    return report


def _count(
    report: IngestionReport, table: str, kind: str, merged: MergeCounts, applied: Applied
) -> None:
    counts = report.count(table)
    counts.add_merge(merged)
    counts.superseded += applied.superseded[kind]
    counts.duplicate += applied.duplicate[kind]


def _count_unread(report: IngestionReport, statements: pl.DataFrame, unread: int) -> None:
    """Count the denials that unread consents amount to; the consents are quarantined."""
    made = statements.filter(pl.col("source_id").str.starts_with(UNREAD)).height
    counts = report.count(WITHDRAWALS.name)
    counts.read += unread
    counts.duplicate += unread - made
    report.split += unread


def _read_consents(
    run: Run, report: IngestionReport
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Return grants, denials, and whose consents could not be read, of all files."""
    grants: list[pl.DataFrame] = [_empty(CONSENTS)]
    denials: list[pl.DataFrame] = [_empty(WITHDRAWALS)]
    unread = [pl.DataFrame(schema=WHOSE)]
    for source, file in enumerate(run.drop.files):
        if file.reader or file.table not in (CONSENTS.name, None):
            continue
        for table, checked in iterate_checked(run, report, source, file, consents=True):
            (grants if table is CONSENTS else denials).append(checked.good)
            if checked.unread is not None:
                unread.append(checked.unread.select(WHOSE.keys()))
    return (
        pl.concat(grants, how="diagonal_relaxed"),
        pl.concat(denials, how="diagonal_relaxed"),
        pl.concat(unread),
    )


def _empty(table: Table) -> pl.DataFrame:
    return pl.DataFrame(schema={**ORIGIN, **table.columns, "source": pl.Int32})


def _join_table_rows(run: Run, report: IngestionReport, grants: pl.DataFrame) -> pl.DataFrame:
    """Return the consents of table files, one per key."""
    rows = grants.with_columns(write_list("data_types"), write_list("purposes"))
    rows = rows.with_row_index("pid").with_columns(available_at=pl.col("granted_at"))
    joined = join_rows(CONSENTS, rows)
    rejected = rows.join(joined.rejected, on="pid").select("source", "row_number", "reason")
    quarantine_by_source(run, report, CONSENTS.name, rejected)
    report.count(CONSENTS.name).duplicate += rows.height - rejected.height - joined.rows.height
    kept = joined.rows.with_columns(read_list("data_types"), read_list("purposes"))
    return kept.select(*COLUMNS, "bucket")


def _remember_retractions(run: Run, report: IngestionReport) -> None:
    """Keep the deletions of consents, and note those of consents that are not known here."""
    met: list[dict[str, Any]] = report.retractions
    retracted = date_retractions(run.lake_url, met, run.now)
    report.retractions = []
    schema = schema_of_parts(STATEMENTS)
    statements = scan_records(run.lake_url, name_parts(STATEMENTS.name), schema)
    stored_ids = statements.select("source_id").collect()["source_id"]
    unknown = retracted.filter(~retracted.is_in(stored_ids.implode())).len()
    if unknown:
        report.notes.append(
            f"consents that were deleted and are not known here: {unknown}; if they were recorded "
            "by another way, withdraw them (DELETE /consents)"
        )
