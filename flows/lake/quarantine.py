"""What a run left out, for people to look at: records that are bad, and records withheld.

Shown are file, row and reason; never a value, never whose.
"""

from typing import Annotated, Any

import polars as pl
import typer
from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from rich.console import Console
from rich.table import Table as Grid

from flows.lake.report import IngestionReport
from flows.lake.tables import QUARANTINE, scan_table
from serving.settings import get_settings

console = Console()

SHOWN_COLUMNS = ("table", "source_file", "row_number", "reason")
#: Rows of the artifact; `make quarantine` shows all.
SHOWN_ROWS = 200


def read_quarantine(lake_url: str, run_id: str | None = None) -> pl.DataFrame:
    """Return quarantined records, newest run first, of one run if given."""
    rows = scan_table(lake_url, QUARANTINE)
    if run_id is not None:
        rows = rows.filter(pl.col("run_id") == run_id)
    ordered = rows.sort(
        "quarantined_at",
        "table",
        "source_file",
        "row_number",
        descending=[True, False, False, False],
    )
    return ordered.select(*SHOWN_COLUMNS, "quarantined_at").collect()


def publish_outcome(report: IngestionReport, failures: list[str]) -> None:
    """Put the counts, the report and what was left out where people look."""
    create_table_artifact(report.to_rows(), key="ingestion-counts", description="Records by table")
    create_markdown_artifact(describe_report(report, failures), key="ingestion-report")
    rows = read_quarantine(get_settings().lake_url, report.run_id).head(SHOWN_ROWS)
    left_out = [
        *rows.select(SHOWN_COLUMNS).to_dicts(),
        *(_describe_withheld(name, counts.withheld) for name, counts in report.tables.items()),
    ]
    create_table_artifact(
        [row for row in left_out if row],
        key="ingestion-left-out",
        description="Quarantined records of this run by file, row and reason, and those withheld",
    )
    logger = get_run_logger()
    if report.withheld:
        logger.warning("%s", report.describe_withheld())
    quarantined = sum(counts.quarantined for counts in report.tables.values())
    if quarantined:
        logger.warning("%d records quarantined: `make quarantine` lists them", quarantined)
    for note in report.notes:
        logger.warning("%s", note)


def _describe_withheld(table: str, withheld: int) -> dict[str, Any]:
    if not withheld:
        return {}
    reason = f"{withheld} records withheld: no consent in force"
    return {"table": table, "source_file": "", "row_number": None, "reason": reason}


def describe_report(report: IngestionReport, failures: list[str]) -> str:
    """Return the report as Markdown; it holds counts and file labels only."""
    states = [
        f"{state.name}: version {state.version}, {state.rows} rows, digest {state.digest[:12]}"
        for state in report.states.values()
    ]
    sections = {
        "Failures": failures,
        "Withheld": [report.describe_withheld()] if report.withheld else [],
        "Notes": report.notes,
        "Read, but left open": _list_counts(report.noted.most_common()),
        "Not used, by kind": _list_counts(report.ignored.most_common()),
        "Codes that map to nothing": _list_counts(report.unmapped.most_common(SHOWN_ROWS)),
        "Lake after this run": states,
    }
    lines = [f"{report.records} records in {report.files} files; {report.other_files} other files."]
    for title, entries in sections.items():
        if entries:
            lines += ["", f"### {title}", "", *(f"- {entry}" for entry in entries)]
    return "\n".join(lines)


def _list_counts(counts: list[tuple[str, int]]) -> list[str]:
    return [f"{kind}: {number}" for kind, number in counts]


def describe_counts(rows: pl.DataFrame) -> str:
    """Return how many records are quarantined, by table: `surveys 3, people 1`."""
    counts = rows.group_by("table").len().sort("len", "table", descending=[True, False])
    return ", ".join(f"{table} {number}" for table, number in counts.iter_rows())


def show(
    last: Annotated[int, typer.Option(min=1, help="Records to list, newest first.")] = 50,
) -> None:
    """List quarantined records: when, table, file, row and reason; never a value."""
    rows = read_quarantine(get_settings().lake_url)
    if rows.is_empty():
        console.print("no record is quarantined")
        return
    grid = Grid(title=f"{rows.height} quarantined records ({describe_counts(rows)})")
    for column in ("when (UTC)", *SHOWN_COLUMNS):
        grid.add_column(column, overflow="fold")
    for *shown, when in rows.head(last).iter_rows():
        grid.add_row(f"{when:%Y-%m-%d %H:%M}", *map(str, shown))
    console.print(grid)


if __name__ == "__main__":
    typer.run(show)
