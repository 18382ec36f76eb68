"""The MEDS export flow: the consenting cohort with its labels in the interchange format MEDS."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import meds
import mlflow
import polars as pl
import pyarrow.parquet as pq
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from feature_repo.pseudonyms import BUCKET_COUNT
from feature_repo.stored_views import JOIN_KEY
from flows.datasets.interchange import (
    COLUMNS,
    LABELS,
    SUBJECT,
    describe_codes,
    describe_dataset,
    list_events,
    make_labels,
    number_subjects,
    split_subjects,
)
from flows.datasets.labels import derive_labels, find_last_day
from flows.lake.consents import keep_consented, read_consented_types
from flows.lake.tables import get_version, scan_table
from flows.runtime.database import open_database
from flows.runtime.notifications import NOTIFICATION_HOOKS
from flows.runtime.retries import IO_RETRIES
from flows.sources.contract import TABLES
from mlruns_config.experiments import MEDS_EXPORT, open_experiment
from serving.settings import get_settings

EXPERIMENT = MEDS_EXPORT
READ_TABLES = ("people", "surveys", "wearable_days", "emr_events", "outcomes")


class TargetNotEmptyError(ValueError):
    """The target folder holds files already; an export never mixes with another."""


@dataclass(frozen=True)
class ExportCounts:
    """What an export holds; `digest` is the SHA-256 over all its files."""

    subjects: int
    measurements: int
    codes: int
    labels: int
    digest: str


@dataclass(frozen=True)
class BucketExport:
    subjects: pl.DataFrame
    labels: Mapping[str, pl.DataFrame]
    codes: frozenset[str]
    measurements: int


@flow(name="meds-export", timeout_seconds=6 * 3600, **NOTIFICATION_HOOKS)
def export_meds(target: str) -> ExportCounts:
    """Write the people who consent to training, with splits and labels, as a MEDS dataset.

    The digest and the versions of the tables are logged to MLflow, never a row. Raises
    TargetNotEmptyError, and SubjectCollisionError where two pseudonyms give one subject id.

    Args:
        target: Folder to write; it must not exist or be empty. The rows are personal data.
    """
    root = prepare_target(target)
    lake_url = get_settings().lake_url
    parts = [export_bucket(lake_url, root, bucket) for bucket in range(BUCKET_COUNT)]
    counts = write_metadata(root, parts)
    log_export(lake_url, counts)
    create_table_artifact([asdict(counts)], key="meds-export", description="MEDS dataset")
    get_run_logger().info("%s", counts)
    return counts


def prepare_target(target: str) -> Path:
    """Return the folder, readable by this user alone. Raises TargetNotEmptyError."""
    root = Path(target)
    if root.exists() and any(root.iterdir()):
        raise TargetNotEmptyError("the target folder is not empty")
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    return root


@task(cache_policy=NO_CACHE, task_run_name="export-bucket-{bucket}", **IO_RETRIES)
def export_bucket(lake_url: str, root: Path, bucket: int) -> BucketExport:
    """Write one bucket of individuals; a subject is in one file, in order of time."""
    with open_database() as engine:
        consented = read_consented_types(engine, purposes=["training"], bucket=bucket)
    tables = {
        name: keep_consented(
            scan_table(lake_url, name, bucket).collect(), TABLES[name].data_type, consented
        )
        for name in READ_TABLES
    }
    landed = (tables[name] for name in ("people", "surveys", "wearable_days", "emr_events"))
    events = list_events(*landed)
    subjects = number_subjects(events[JOIN_KEY])
    rows = events.join(subjects, on=JOIN_KEY).select(COLUMNS).sort(SUBJECT, "time", "code")
    write_table(root / meds.data_subdirectory / f"{bucket}.parquet", rows, meds.DataSchema)
    labelled = derive_labels(
        tables["surveys"], tables["emr_events"], tables["outcomes"], find_last_day(lake_url)
    )
    labels = {outcome: make_labels(labelled, subjects, outcome) for outcome in LABELS}
    codes = frozenset(rows["code"].unique())
    return BucketExport(subjects, labels, codes, rows.height)


def write_table(path: Path, rows: pl.DataFrame, schema: Any) -> None:
    """Write rows that the schema of MEDS accepts; raises what its validation raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # By pyarrow: Polars would write its own string type.
    pq.write_table(schema.align(rows.to_arrow()), path)


def write_metadata(root: Path, parts: list[BucketExport]) -> ExportCounts:
    """Write splits, labels, codes and the description; return the counts with the digest."""
    subjects = pl.concat([part.subjects for part in parts])
    number_subjects(subjects[JOIN_KEY])
    splits = split_subjects(subjects)
    write_table(root / meds.subject_splits_filepath, splits, meds.SubjectSplitSchema)
    labelled = 0
    for outcome in LABELS:
        rows = pl.concat([part.labels[outcome] for part in parts]).sort(SUBJECT, "prediction_time")
        write_table(root / "labels" / f"{outcome}.parquet", rows, meds.LabelSchema)
        labelled += rows.height
    codes = set().union(*(part.codes for part in parts))
    described = describe_codes(codes)
    write_table(root / meds.code_metadata_filepath, described, meds.CodeMetadataSchema)
    digest = hash_files(root)
    description = describe_dataset(digest[:16], datetime.now(UTC))
    meds.DatasetMetadataSchema.validate(description)
    (root / meds.dataset_metadata_filepath).write_text(json.dumps(description, indent=2))
    measurements = sum(part.measurements for part in parts)
    return ExportCounts(subjects.height, measurements, len(codes), labelled, digest)


def hash_files(root: Path) -> str:
    """Return the SHA-256 over the names and contents of all files below a folder."""
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.parquet")):
        digest.update(str(path.relative_to(root)).encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def log_export(lake_url: str, counts: ExportCounts) -> None:
    """Log digest, counts and table versions as an MLflow run."""
    mlflow.set_tracking_uri(get_settings().mlflow_tracking_uri)
    open_experiment(EXPERIMENT)
    with mlflow.start_run(run_name=f"MEDS export {datetime.now(UTC):%Y-%m-%d %H:%M}"):
        mlflow.log_params(asdict(counts))
        mlflow.set_tag("digest", counts.digest)
        versions = {name: get_version(lake_url, name) for name in READ_TABLES}
        mlflow.set_tags({f"version.{name}": str(version) for name, version in versions.items()})
