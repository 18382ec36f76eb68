"""The ingestion flow: from a drop to the lake, by pseudonym, consent and contract.

Consents go to PostgreSQL first and decide what may land. Then every file is read in batches,
its rows checked, withheld or staged; then each table's staged records are joined with what has
landed and merged into the lake by hash bucket. Nothing is lost: what does not land is counted,
and what is bad is in the quarantine with file, row and reason.
"""

import shutil
from datetime import UTC, datetime
from typing import Any

import polars as pl
from deltalake.exceptions import DeltaError
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect.states import Completed, State
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from flows.lake.checking import Run, iterate_checked, quarantine_by_source
from flows.lake.code_coverage import count_unmapped
from flows.lake.consent_landing import land_consents
from flows.lake.consents import keep_consented, read_consented_types
from flows.lake.groups import plan_groups
from flows.lake.landing import land_records
from flows.lake.moves import list_staged_moves, note_places, note_withheld
from flows.lake.origin import is_simulated
from flows.lake.parts import date_retractions, read_retractions
from flows.lake.people import move_consents, take_records
from flows.lake.quarantine import publish_outcome
from flows.lake.report import IngestionFailedError, IngestionReport
from flows.lake.staging import open_staging, read_staged, stage_rows, unstage_rows
from flows.lake.tables import describe_table
from flows.runtime.arguments import pass_whole
from flows.runtime.database import open_database
from flows.runtime.locks import run_alone
from flows.runtime.notifications import NOTIFICATION_HOOKS
from flows.sources.clean import find_shifted_scale
from flows.sources.contract import CONSENTS, EMR_EVENTS, PEOPLE, TABLES, Table
from flows.sources.delimited import list_unknown_columns
from flows.sources.drop import Drop, SourceFile, find_files
from flows.sources.fhir_context import gather_context
from flows.sources.locations import DropLocation, check_location, find_import_root, split_locations
from flows.sources.pseudonymise import PersonKey
from mlruns_config.data_origin import note_origin
from serving.settings import Settings, get_settings

#: Share of a table's records that may be bad before a run fails. A few bad rows are usual;
#: one in twenty means that the export is wrong.
MAX_QUARANTINED_SHARE = 0.05

#: Share of all records that may be withheld before a run fails: all of them may, with a warning,
#: because consents may come after the data.
MAX_WITHHELD_SHARE = 1.0

#: Share of a file's people without any consent from which their ids are taken to be in doubt.
STRANGERS_SHARE = 0.9

LANDED_TABLES = tuple(table for table in TABLES.values() if table is not CONSENTS)


#: Trouble of networks, disks and object stores that may pass. A bad file is not among it.
PASSING_ERRORS = (OSError, DeltaError, OperationalError)


@flow(name="ingestion", timeout_seconds=12 * 3600, **NOTIFICATION_HOOKS)
def ingest(
    drop: DropLocation,
    max_quarantined_share: float = MAX_QUARANTINED_SHARE,
    max_withheld_share: float = MAX_WITHHELD_SHARE,
) -> Any:
    """Ingest a drop of the input contract; idempotent. Returns an IngestionReport.

    Ends in a state named Withheld where consents let nothing land. Raises IngestionFailedError,
    after everything that is good has landed, when a file cannot be read or more than
    `max_quarantined_share` of a table's records are bad; EmptyDropError when there is nothing
    to read; DropLocationError outside DROP_LOCATIONS; AlreadyRunningError while another ingestion
    runs.

    Args:
        drop: Folder or s3:// prefix of the files, within DROP_LOCATIONS.
        max_quarantined_share: Share of a table's records that may be bad before the run fails.
        max_withheld_share: Share of all records that may be withheld before the run fails.
    """
    settings = get_settings()
    check_location(drop, list_locations(settings))
    with open_database() as engine, run_alone("ingestion"):
        key = PersonKey(
            settings.anonymization_salt.get_secret_value(), folds_case=settings.folds_case_of_ids
        )
        run = prepare_run(drop, settings.lake_url, key)
        note_origin(engine, is_simulated=is_simulated(settings.lake_url))
        report = ingest_files(run, engine)
    return _conclude(report, max_quarantined_share, max_withheld_share)


def list_locations(settings: Settings) -> list[str]:
    """Return where drops may lie: as the site set it, and where bulk-import puts its exports."""
    allowed = split_locations(settings.drop_locations)
    return [*allowed, str(find_import_root(settings.lake_url))]


def prepare_run(drop: str, lake_url: str, key: PersonKey) -> Run:
    """Return what every step of an ingestion into a lake needs; raises EmptyDropError."""
    contents = find_drop_files(drop)
    return Run(
        run_id=str(flow_run.get_id()),
        now=datetime.now(UTC),
        lake_url=lake_url,
        staging=open_staging(lake_url),
        key=key,
        drop=contents,
        context=gather_context(contents.fhir),
    )


def ingest_files(run: Run, engine: Engine) -> IngestionReport:
    """Land what the consents in the database of `engine` allow; return what was counted."""
    progress: Any = create_progress_artifact(0.0, key="ingestion-progress")
    report = IngestionReport(run.run_id, len(run.drop.files), run.drop.others)
    report.errors.extend(run.drop.errors)
    report.notes.extend(run.drop.notes)
    # Of a drop of many files, and of the identifiers of many individuals.
    given = pass_whole(run)
    report.add(ingest_consents(given, engine))
    consented = read_consented_types(engine)
    steps = len(run.drop.files) + len(LANDED_TABLES)
    try:
        for done, file in enumerate(run.drop.files, 1):
            _tell_step(progress, done - 1, steps, f"reading {file.label}")
            report.add(stage_file(given, done - 1, file, consented))
        retracted = retract_records(given, pass_whole(report.retractions))
        for done, table in enumerate(LANDED_TABLES, len(run.drop.files) + 1):
            _tell_step(progress, done - 1, steps, f"landing {table.name}")
            report.add(land_table(given, table, retracted))
        update_progress_artifact(progress, 100.0)
    finally:
        shutil.rmtree(run.staging, ignore_errors=True)
    return report


def _tell_step(progress: Any, done: int, steps: int, step: str) -> None:
    update_progress_artifact(progress, 100 * done / steps, description=step)
    get_run_logger().info("step %d of %d: %s", done + 1, steps, step)


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
    """Write the consents of a drop, and what was denied or replaced, to PostgreSQL."""
    replaced = _hide_replaced(run)
    if replaced:
        move_consents(engine, replaced, run.now)
    return land_consents(run, engine)


def _hide_replaced(run: Run) -> dict[str, str]:
    """Return who replaces whom by pseudonym."""
    pairs = run.context.replaced.items()
    hidden = {run.key.pseudonymise(old): run.key.pseudonymise(new) for old, new in pairs}
    return {old: new for old, new in hidden.items() if old and new}


@task(task_run_name="stage {file.label}", **_retried)
def stage_file(run: Run, source: int, file: SourceFile, consented: pl.DataFrame) -> IngestionReport:
    """Check the rows of one file, withhold those without consent and stage the others."""
    report = IngestionReport(run.run_id)
    if file.table == CONSENTS.name:
        return report
    scales, people = [], []
    for number, (table, checked) in enumerate(iterate_checked(run, report, source, file, False)):
        rows, batch = checked.good, f"{source}-{number}"
        allowed = keep_consented(rows, table.data_type, consented)
        report.count(table.name).withheld += rows.height - allowed.height
        stage_rows(run.staging, table.name, allowed, batch)
        withheld = rows.join(allowed, on="anonymized_id", how="anti")
        note_withheld(run.staging, table.name, withheld, batch)
        note_places(run.staging, table.name, rows.drop_nulls("source_id"), batch)
        people.append(rows.select("anonymized_id").unique())
        if table is EMR_EVENTS:
            report.unmapped.update(count_unmapped(allowed))
        if checked.scales is not None:
            scales.append(checked.scales)
    if not file.table:
        return report
    shifted = find_shifted_scale(pl.concat(scales)) if scales else None
    if shifted:
        unstage_rows(run.staging, file.table, source)
        return IngestionReport(run.run_id, errors=[f"{file.label}: {shifted}"])
    report.notes.extend(_describe_unknown_columns(file, report))
    report.notes.extend(_describe_strangers(file, people, consented))
    return report


@task(**_retried)
def retract_records(run: Run, retractions: list[dict[str, Any]]) -> pl.Series:
    """Store what a drop retracts, moved resources too; return the source_ids of all of them."""
    moves = list_staged_moves(run.lake_url, run.staging)
    return date_retractions(run.lake_url, [*retractions, *moves], run.now)


@task(task_run_name="land {table.name}", **_retried)
def land_table(run: Run, table: Table, retracted: pl.Series) -> IngestionReport:
    """Merge the staged records of one table into the lake, some buckets at a time."""
    report = IngestionReport(run.run_id)
    _move_replaced(run, report, table)
    counts = report.count(table.name)
    retractions = read_retractions(run.lake_url)
    for buckets in plan_groups(run.lake_url, run.staging, table, retracted):
        rows = read_staged(run.staging, table, buckets)
        landing = land_records(run.lake_url, table, buckets, rows, retractions, retracted, run.now)
        counts.add_landing(landing)
        for rejected in landing.rejected:
            quarantine_by_source(run, report, table.name, rejected)
    report.states[table.name] = describe_table(run.lake_url, table.name)
    get_run_logger().info("%s: %d rows landed", table.name, counts.landed)
    return report


def _move_replaced(run: Run, report: IngestionReport, table: Table) -> None:
    """Stage what is kept under ids that others replace, as if the drop held it."""
    replaced = _hide_replaced(run)
    if not replaced:
        return
    moved = take_records(run.lake_url, table, replaced)
    if moved.height:
        stage_rows(run.staging, table.name, moved, "moved")
        report.count(table.name).read += moved.height
        report.split += moved.height
    if table is PEOPLE:
        report.notes.append(f"people whose id another replaces: {len(replaced)}, now one person")


def _describe_unknown_columns(file: SourceFile, report: IngestionReport) -> list[str]:
    if report.errors:
        return []
    unknown = list_unknown_columns(file)
    return [f"{file.label}: not read, because not in the contract: {', '.join(unknown)}"] * bool(
        unknown
    )


def _describe_strangers(
    file: SourceFile, people: list[pl.DataFrame], consented: pl.DataFrame
) -> list[str]:
    """Return a note where almost no person in a file has a consent: their ids may differ."""
    if not people or consented.is_empty():
        return []
    everyone = pl.concat(people).unique()
    strangers = everyone.join(consented, on="anonymized_id", how="anti").height
    if everyone.height == 0 or strangers < STRANGERS_SHARE * everyone.height:
        return []
    return [
        f"{file.label}: {strangers} of {everyone.height} people have no consent under these ids; "
        "if they should, compare how person_id is written there and in consents"
    ]


def _conclude(
    report: IngestionReport, max_quarantined_share: float, max_withheld_share: float
) -> State[Any] | IngestionReport:
    report.check()
    failures = report.list_failures(max_quarantined_share, max_withheld_share)
    publish_outcome(report, failures)
    if failures:
        raise IngestionFailedError("the rest is landed, but: " + "; ".join(failures), report)
    if report.is_all_withheld:
        return Completed(name="Withheld", message=report.describe_withheld(), data=report)
    return report
