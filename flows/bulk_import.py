"""The bulk import flow: pulls what changed from a FHIR server, and ingests it.

The request covers what changed since the server's `transactionTime` of the last import that was
ingested. The files hold people's data as they are: they lie in a folder of the lake's machine that
only this user reads, and go when they have been ingested.
"""

import hashlib
import shutil
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows.ingestion import MAX_QUARANTINED_SHARE, ingest
from flows.lake.report import IngestionFailedError, IngestionReport
from flows.lake.tables import append_rows, create_table, scan_records
from flows.runtime.notifications import NOTIFICATION_HOOKS
from flows.sources.bulk.access import Access, Client
from flows.sources.bulk.export import Export, finish_export, pull_export
from flows.sources.contract import INSTANT, ColumnTypes
from flows.sources.locations import find_import_root
from serving.settings import get_settings

IMPORTS = "bulk_imports"
IMPORT_SCHEMA: ColumnTypes = {
    "server": pl.String,
    "transaction_time": pl.String,
    "finished_at": INSTANT,
}


@flow(name="bulk-import", timeout_seconds=24 * 3600, **NOTIFICATION_HOOKS)
def import_from_server(
    server: str,
    client_id: str,
    key_file: str,
    key_id: str,
    level: str = "",
    everything: bool = False,
    max_quarantined_share: float = MAX_QUARANTINED_SHARE,
) -> IngestionReport:
    """Pull a Bulk Data export and ingest it; a run after a cut goes on where it was.

    Raises BulkServerError when the server does not deliver the export, and what ingestion
    raises; the next run then requests the same again.

    Args:
        server: Base URL of the FHIR server.
        client_id: Id of this client at the server (SMART Backend Services).
        key_file: Path of the client's private key in PEM; its public half is with the server.
        key_id: `kid` of that key.
        level: Nothing for the whole server, `Patient`, or `Group/<id>`.
        everything: Whether to ask for everything instead of what changed since the last import.
        max_quarantined_share: Share of a table's records that may be bad before the run fails.
    """
    lake_url = get_settings().lake_url
    folder = locate_folder(lake_url, server, level)
    since = None if everything else find_last_time(lake_url, server, level)
    client = Client(client_id, Path(key_file).read_text(), key_id)
    access = Access(server.rstrip("/"), client)
    try:
        export = pull(access, folder, level, since)
        create_table_artifact([asdict(export)], key="bulk-import", description="Export files")
        report = ingest_files(folder, max_quarantined_share)
        remember_time(lake_url, server, level, export.transaction_time)
        finish_export(access, folder)
    finally:
        access.close()
    shutil.rmtree(folder)
    return report


def ingest_files(folder: Path, max_quarantined_share: float) -> IngestionReport:
    """Ingest an export; one that fails is deleted, and the next run requests the same again."""
    try:
        report: Any = ingest(str(folder), max_quarantined_share=max_quarantined_share)
    except IngestionFailedError:
        shutil.rmtree(folder)
        raise
    assert isinstance(report, IngestionReport)
    return report


@task(cache_policy=NO_CACHE)
def pull(access: Access, folder: Path, level: str, since: str | None) -> Export:
    """Pull the export; waits, retries and what was there before a cut are the export's own."""
    logger = get_run_logger()
    logger.info("exporting %s", f"what changed since {since}" if since else "everything")
    export = pull_export(access, folder, level, since, announce=logger.info)
    if export.errors:
        logger.warning("the server names %d files of errors in its manifest", export.errors)
    return export


def name_server(server: str, level: str) -> str:
    """Return what an import is known by: a digest, since an address may hold a name."""
    return hashlib.sha256(f"{server.rstrip('/')} {level}".encode()).hexdigest()[:16]


def locate_folder(lake_url: str, server: str, level: str) -> Path:
    """Return the folder of an import, the same in every run of it."""
    return find_import_root(lake_url) / name_server(server, level)


def find_last_time(lake_url: str, server: str, level: str) -> str | None:
    """Return the transactionTime of the last import that was ingested, None before the first."""
    imports = scan_records(lake_url, IMPORTS, IMPORT_SCHEMA)
    own = imports.filter(pl.col("server") == name_server(server, level)).sort("finished_at")
    times = own.collect()["transaction_time"].to_list()
    return str(times[-1]) if times else None


def remember_time(lake_url: str, server: str, level: str, transaction_time: str) -> None:
    """Keep the transactionTime from which the next import goes on."""
    values: dict[str, Any] = {
        "server": name_server(server, level),
        "transaction_time": transaction_time,
        "finished_at": datetime.now(UTC),
    }
    create_table(lake_url, IMPORTS, IMPORT_SCHEMA, partition_by=[])
    append_rows(lake_url, IMPORTS, pl.DataFrame([values], schema=IMPORT_SCHEMA))
