"""The ingestion flow: from a drop to the lake, by pseudonym, consent and contract.

Consents go to PostgreSQL first and decide what may land. Then every file is read in batches,
its rows checked, withheld or staged; then each table's staged rows are joined to one per key
and merged into the lake bucket by bucket. Nothing is lost: what does not land is counted, and
what is bad is in the quarantine with file, row and reason.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from deltalake.exceptions import DeltaError
from prefect import flow, get_run_logger, task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from flows.lake.consents import (
    hold_ingestion_lock,
    keep_consented,
    read_consented_types,
    upsert_consents,
    withdraw_consents,
)
from flows.lake.joining import join_records
from flows.lake.report import IngestionFailedError, IngestionReport
from flows.lake.staging import list_staged_buckets, open_staging, read_staged, stage_rows
from flows.lake.tables import QUARANTINE_SCHEMA, append_quarantine, describe_table, merge_rows
from flows.runtime.database import open_database
from flows.runtime.notifications import NOTIFICATION_HOOKS
from flows.sources.batch import Batch, UnreadableFileError
from flows.sources.clean import WITHDRAWALS, check_rows
from flows.sources.contract import CONSENTS, INSTANT, TABLES, Table
from flows.sources.delimited import list_unknown_columns, read_delimited
from flows.sources.drop import Drop, SourceFile, find_files
from flows.sources.fhir import find_medications, read_fhir
from flows.sources.fhir_values import Context
from flows.sources.pseudonymise import PersonKey
from serving.settings import Settings, get_settings

#: Share of a table's records that may be bad before a run fails. A few bad rows are usual;
#: one in twenty means that the export is wrong.
MAX_QUARANTINED_SHARE = 0.05

LANDED_TABLES = tuple(table for table in TABLES.values() if table is not CONSENTS)


#: Trouble of networks, disks and object stores that may pass. A bad file is not among it.
PASSING_ERRORS = (OSError, DeltaError, OperationalError)


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


@flow(name="ingestion", timeout_seconds=12 * 3600, **NOTIFICATION_HOOKS)
def ingest(drop: str, max_quarantined_share: float = MAX_QUARANTINED_SHARE) -> IngestionReport:
    """Ingest a drop of the input contract; idempotent.

    Raises IngestionFailedError, after everything that is good has landed, when a file cannot
    be read or more than `max_quarantined_share` of a table's records are bad;
    EmptyDropError when there is nothing to read; IngestionRunningError when another is at it.

    Args:
        drop: Folder or s3:// prefix of the files.
        max_quarantined_share: Share of a table's records that may be bad before the run fails.
    """
    settings = get_settings()
    with open_database() as engine, hold_ingestion_lock(engine):
        report = _ingest_files(_prepare(drop, settings), engine)
    return _conclude(report, max_quarantined_share)


def _prepare(drop: str, settings: Settings) -> Run:
    found = find_drop_files(drop)
    return Run(
        run_id=str(flow_run.get_id()),
        now=datetime.now(UTC),
        lake_url=settings.lake_url,
        staging=open_staging(settings.lake_url),
        key=PersonKey(settings.anonymization_salt.get_secret_value()),
        drop=found,
        context=find_medications(found.fhir),
    )


def _ingest_files(run: Run, engine: Engine) -> IngestionReport:
    progress: Any = create_progress_artifact(0.0, key="ingestion-progress")
    report = IngestionReport(run.run_id, len(run.drop.files), run.drop.others)
    report.errors.extend(run.drop.errors)
    report.add(ingest_consents(run, engine))
    consented = read_consented_types(engine, run.now)
    steps = len(run.drop.files) + len(LANDED_TABLES)
    try:
        for done, file in enumerate(run.drop.files, 1):
            report.add(stage_file(run, done - 1, file, consented))
            update_progress_artifact(progress, 100 * done / steps)
        for done, table in enumerate(LANDED_TABLES, len(run.drop.files) + 1):
            report.add(land_table(run, table))
            update_progress_artifact(progress, 100 * done / steps)
    finally:
        shutil.rmtree(run.staging, ignore_errors=True)
    return report


def _may_pass(task: Any, task_run: Any, state: Any) -> bool:
    return isinstance(state.result(raise_on_failure=False), PASSING_ERRORS)


# A step counts in what it returns and writes what it wrote before under the same names, so a
# step that is tried again counts nothing twice and stages nothing twice.
_retried: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": [2, 10],
    "retry_condition_fn": _may_pass,
    "cache_policy": NO_CACHE,
}


@task(**_retried)
def find_drop_files(drop: str) -> Drop:
    """List the files of a drop and their digests."""
    return find_files(drop)


@task(**_retried)
def ingest_consents(run: Run, engine: Engine) -> IngestionReport:
    """Write the consents of a drop, then what was withdrawn, to PostgreSQL."""
    report = IngestionReport(run.run_id)
    kept: dict[str, list[pl.DataFrame]] = {CONSENTS.name: [], WITHDRAWALS.name: []}
    for source, file in enumerate(run.drop.files):
        if file.table in (CONSENTS.name, None):
            for table, rows in _iterate_checked(run, report, source, file, consents=True):
                kept[table.name].append(rows)
    granted = _join_all(run, report, CONSENTS, kept[CONSENTS.name])
    report.count(CONSENTS.name).add_merge(upsert_consents(engine, granted))
    ended = _join_all(run, report, WITHDRAWALS, kept[WITHDRAWALS.name])
    report.count(WITHDRAWALS.name).add_merge(withdraw_consents(engine, ended, run.now))
    return report


@task(task_run_name="stage {file.label}", **_retried)
def stage_file(run: Run, source: int, file: SourceFile, consented: pl.DataFrame) -> IngestionReport:
    """Check the rows of one file, withhold those without consent and stage the others."""
    report = IngestionReport(run.run_id)
    if file.table == CONSENTS.name:
        return report
    checked = _iterate_checked(run, report, source, file, consents=False)
    for number, (table, rows) in enumerate(checked):
        allowed = keep_consented(rows, table.data_type, consented)
        report.count(table.name).withheld += rows.height - allowed.height
        stage_rows(run.staging, table.name, allowed, f"{source}-{number}")
    if file.table:
        report.notes.extend(_describe_unknown_columns(file, report))
    return report


@task(task_run_name="land {table.name}", **_retried)
def land_table(run: Run, table: Table) -> IngestionReport:
    """Merge the staged rows of one table into the lake, bucket by bucket."""
    report = IngestionReport(run.run_id)
    counts = report.count(table.name)
    for bucket in list_staged_buckets(run.staging, table.name):
        rows = _join_all(run, report, table, read_staged(run.staging, table.name, bucket))
        ingested = rows.with_columns(ingested_at=pl.lit(run.now).cast(INSTANT))
        counts.add_merge(merge_rows(run.lake_url, table.name, ingested))
    report.states[table.name] = describe_table(run.lake_url, table.name)
    get_run_logger().info("%s: %d rows landed", table.name, counts.landed)
    return report


def _iterate_checked(
    run: Run, report: IngestionReport, source: int, file: SourceFile, consents: bool
) -> Iterator[tuple[Table, pl.DataFrame]]:
    """Yield checked rows by table; count records, quarantine bad ones, note a bad file."""
    try:
        for batch in _read_file(run, file, consents):
            _count_batch(run, report, file, batch)
            for name, rows in batch.rows.items():
                table = TABLES.get(name, WITHDRAWALS)
                checked = check_rows(table, rows, run.now)
                report.count(name).read += rows.height
                _quarantine(run, report, file, table.name, checked.rejected)
                yield table, checked.good.with_columns(source=pl.lit(source, dtype=pl.Int32))
    except UnreadableFileError as error:
        report.errors.append(str(error))


def _read_file(run: Run, file: SourceFile, consents: bool) -> Iterator[Batch]:
    if file.table:
        return read_delimited(file, run.key)
    return read_fhir(file, run.key, run.context, consents)


def _count_batch(run: Run, report: IngestionReport, file: SourceFile, batch: Batch) -> None:
    report.records += batch.records
    report.split += batch.split
    report.ignored.update(batch.ignored)
    for table in sorted({rejected.table for rejected in batch.rejected}):
        rows = [(one.row_number, one.reason) for one in batch.rejected if one.table == table]
        schema = {"row_number": pl.Int64, "reason": pl.String}
        report.count(table).read += len(rows)
        _quarantine(run, report, file, table, pl.DataFrame(rows, schema=schema, orient="row"))


def _quarantine(
    run: Run, report: IngestionReport, file: SourceFile, table: str, rejected: pl.DataFrame
) -> None:
    report.count(table).quarantined += rejected.height
    rows = rejected.with_columns(
        run_id=pl.lit(run.run_id),
        table=pl.lit(table),
        source_file=pl.lit(file.label),
        source_digest=pl.lit(file.digest),
        quarantined_at=pl.lit(run.now).cast(INSTANT),
    )
    append_quarantine(run.lake_url, rows.select(QUARANTINE_SCHEMA.keys()))


def _join_all(
    run: Run, report: IngestionReport, table: Table, staged: list[pl.DataFrame]
) -> pl.DataFrame:
    """Return one row per key of all that a drop says, counting and quarantining the rest."""
    if not staged:
        return pl.DataFrame(schema=table.schema)
    joined = join_records(table, pl.concat(staged))
    counts = report.count(table.name)
    counts.combined += joined.combined
    counts.duplicate += joined.duplicate
    for (source,), rows in joined.rejected.partition_by("source", as_dict=True).items():
        file = run.drop.files[source]
        _quarantine(run, report, file, table.name, rows.select("row_number", "reason"))
    return joined.rows


def _describe_unknown_columns(file: SourceFile, report: IngestionReport) -> list[str]:
    if report.errors:
        return []
    unknown = list_unknown_columns(file)
    return [f"{file.label}: not read, because not in the contract: {', '.join(unknown)}"] * bool(
        unknown
    )


def _conclude(report: IngestionReport, max_quarantined_share: float) -> IngestionReport:
    report.check()
    create_table_artifact(report.to_rows(), key="ingestion-counts", description="Records by table")
    failures = report.list_failures(max_quarantined_share)
    create_markdown_artifact(describe_report(report, failures), key="ingestion-report")
    if failures:
        raise IngestionFailedError("the rest is landed, but: " + "; ".join(failures), report)
    return report


def describe_report(report: IngestionReport, failures: list[str]) -> str:
    """Return the report in words (Markdown); it holds counts and file labels only."""
    ignored = [f"{kind}: {number}" for kind, number in report.ignored.most_common()]
    states = [
        f"{state.name}: version {state.version}, {state.rows} rows, digest {state.digest[:12]}"
        for state in report.states.values()
    ]
    sections = {
        "Failures": failures,
        "Notes": report.notes,
        "Not used, by kind": ignored,
        "Lake after this run": states,
    }
    lines = [f"{report.records} records in {report.files} files; {report.other_files} other files."]
    for title, entries in sections.items():
        if entries:
            lines += ["", f"### {title}", "", *(f"- {entry}" for entry in entries)]
    return "\n".join(lines)
