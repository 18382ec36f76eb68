"""The validation flow: Great Expectations checkpoints over every landed table.

Rows that break an expectation are set aside (kept, but out of the lake's way); a table
that breaks one beyond its tolerance stops the run with the expectation's description, and stays
as it is until it is ingested again.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import great_expectations as gx
import mlflow
import polars as pl
from great_expectations.data_context import AbstractDataContext
from great_expectations.data_context.types.base import ProgressBarsConfig
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from feature_repo.pseudonyms import BUCKET_COUNT
from flows.lake.tables import get_version, scan_table, set_rows_aside
from flows.quality.page import render_page
from flows.quality.results import VALIDATION_EXPERIMENT, ExpectationResult, TableResult
from flows.quality.suites import list_expectations
from flows.runtime.notifications import NOTIFICATION_HOOKS
from flows.runtime.retries import IO_RETRIES
from flows.sources.contract import CONSENTS, TABLES
from mlruns_config.experiments import open_experiment
from mlruns_config.pages import locate_run
from serving.settings import get_settings

VALIDATED_TABLES = tuple(name for name in TABLES if name != CONSENTS.name)
#: Rows handed to Great Expectations at a time (it takes pandas, all in memory).
ROWS_PER_CHECKPOINT = 1_000_000


class ValidationFailedError(RuntimeError):
    """A table breaks an expectation beyond its tolerance; the message names it."""


@flow(name="validation", timeout_seconds=6 * 3600, **NOTIFICATION_HOOKS)
def validate_lake() -> str:
    """Validate every landed table; return the MLflow run that keeps the results.

    Raises ValidationFailedError naming every expectation that failed.
    """
    settings = get_settings()
    results = [validate_table(settings.lake_url, name) for name in VALIDATED_TABLES]
    run_id = log_results(results, settings.mlflow_tracking_uri)
    create_table_artifact(
        [
            {"table": result.table, "rows": result.rows, "set aside": result.set_aside}
            for result in results
        ],
        key="validation-counts",
    )
    failures = [failure for result in results for failure in result.failures]
    if failures:
        raise ValidationFailedError("; ".join(failures))
    return run_id


@task(cache_policy=NO_CACHE, task_run_name="validate-{table}")
def validate_table(lake_url: str, table: str) -> TableResult:
    """Run a table's suite over it, some buckets at a time, and set failing rows aside.

    A table that fails as a whole stays as it is: without its broken rows the next run would
    pass over what is left of it.
    """
    result = TableResult(table)
    broken: list[pl.DataFrame] = []
    for rows in _iterate_chunks(lake_url, table):
        broken.append(_add_results(result, run_checkpoint(table, rows), rows))
        result.rows += rows.height
    if not result.failures:
        result.set_aside = sum(set_rows_aside(lake_url, table, rows) for rows in broken)
    result.version = get_version(lake_url, table)
    get_run_logger().info("%s: %d rows, %d set aside", table, result.rows, result.set_aside)
    return result


def _iterate_chunks(lake_url: str, table: str) -> Iterator[pl.DataFrame]:
    """Yield the table in chunks of whole buckets, each with a column `row`."""
    waiting: list[pl.DataFrame] = []
    for bucket in range(BUCKET_COUNT):
        waiting.append(scan_table(lake_url, table, bucket).collect())
        if sum(part.height for part in waiting) >= ROWS_PER_CHECKPOINT:
            yield pl.concat(waiting).with_row_index("row")
            waiting = []
    if any(part.height for part in waiting):
        yield pl.concat(waiting).with_row_index("row")


def open_context() -> AbstractDataContext:
    """Return an ephemeral Great Expectations context that draws no progress bars."""
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return context


def run_checkpoint(table: str, rows: pl.DataFrame) -> list[dict[str, Any]]:
    """Run the suite of `table` over `rows`; return one result per expectation."""
    context = open_context()
    source = context.data_sources.add_pandas("lake")
    batch = source.add_dataframe_asset(table).add_batch_definition_whole_dataframe("rows")
    suite = context.suites.add(
        gx.ExpectationSuite(name=table, expectations=list_expectations(table))
    )
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name=table, data=batch, suite=suite)
    )
    checkpoint = context.checkpoints.add(
        gx.Checkpoint(
            name=table,
            validation_definitions=[definition],
            result_format={
                "result_format": "COMPLETE",
                "unexpected_index_column_names": ["row"],
                # The broken values themselves stay out of every result.
                "exclude_unexpected_values": True,
            },
        )
    )
    checkpoint_result = checkpoint.run(batch_parameters={"dataframe": rows.to_pandas()})
    (validation,) = checkpoint_result.run_results.values()
    return [result.to_json_dict() for result in validation.results]


def _add_results(
    result: TableResult, checked: list[dict[str, Any]], rows: pl.DataFrame
) -> pl.DataFrame:
    """Add the results of a chunk; return its broken rows with the reason."""
    broken = []
    for number, check_result in enumerate(checked):
        config, details = check_result["expectation_config"], check_result["result"]
        if number == len(result.results):
            result.results.append(ExpectationResult(config["description"], config["type"]))
        total = result.results[number]
        total.rows += details.get("element_count", rows.height)
        total.unexpected += details.get("unexpected_count", 0)
        total.success &= bool(check_result["success"])
        broken.append(
            pl.DataFrame(
                {"row": _list_broken_rows(details)}, schema={"row": rows.schema["row"]}
            ).with_columns(pl.lit(config["description"]).alias("reason"))
        )
    reasons = pl.concat(broken).group_by("row").agg(pl.col("reason").sort().str.join("; "))
    return rows.join(reasons, on="row").drop("row")


def _list_broken_rows(details: dict[str, Any]) -> list[int]:
    # Great Expectations gives one entry for all rows where the values are left out.
    rows: set[int] = set()
    for entry in details.get("unexpected_index_list") or []:
        rows.update(entry["row"] if isinstance(entry["row"], list) else [entry["row"]])
    return sorted(rows)


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def log_results(results: list[TableResult], tracking_uri: str) -> str:
    """Log the results and their page to an MLflow run; link it; return the run's id."""
    mlflow.set_tracking_uri(tracking_uri)
    open_experiment(VALIDATION_EXPERIMENT)
    page = render_page(results, datetime.now(UTC))
    with mlflow.start_run(run_name=f"validation {datetime.now(UTC):%Y-%m-%d %H:%M}") as run:
        mlflow.log_text(page, "validation.html")
        mlflow.set_tags({f"version.{result.table}": str(result.version) for result in results})
        mlflow.set_tag("success", str(not any(result.failures for result in results)).lower())
        for result in results:
            mlflow.log_metric(f"{result.table}_rows", result.rows)
            mlflow.log_metric(f"{result.table}_set_aside", result.set_aside)
    link = locate_run(run.info.experiment_id, run.info.run_id, "validation.html", host=tracking_uri)
    create_link_artifact(link, link_text="validation results", key="validation-page")
    return str(run.info.run_id)
