"""What a release was made of: data versions, code, flow run, feature contract."""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import mlflow
from mlflow.data.delta_dataset_source import DeltaDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Run

from feature_repo.catalogue import STORED_VIEWS
from feature_repo.feast_library import FeatureService
from feature_repo.screening_v1 import screening_v1
from flows.features.tables import get_table_version
from flows.lake.origin import is_simulated
from flows.lake.tables import TableState, describe_table, locate_table
from flows.quality.results import VALIDATION_EXPERIMENT
from flows.runtime.flow_run import describe_flow_run
from flows.sources.contract import CONSENTS, TABLES

PROJECT = Path(__file__).resolve().parents[2]
#: Characters that are kept of a tag.
TAG_LIMIT = 5000
LANDED_TABLES = tuple(name for name in TABLES if name != CONSENTS.name)


def describe_lineage(lake_url: str) -> dict[str, Any]:
    """Return everything a reviewer needs to find what a release was made of."""
    tables = {name: describe_table(lake_url, name) for name in LANDED_TABLES}
    return {
        "tables": {name: asdict(state) for name, state in tables.items()},
        "simulated": is_simulated(lake_url),
        "validation": find_validation({name: state.version for name, state in tables.items()}),
        "feature_tables": {view.name: get_table_version(view) for view in STORED_VIEWS},
        "feature_service": screening_v1.name,
        "feature_service_hash": hash_feature_service(screening_v1),
        "environment": describe_environment(),
        "git_commit": find_git_commit(),
        **describe_flow_run(),
    }


def describe_tags(lineage: Mapping[str, Any]) -> dict[str, str]:
    """Return a lineage as tags of a run that a person reads, `lineage.<what>`."""
    words = {name: str(value) for name, value in lineage.items() if isinstance(value, str)}
    tables = {
        name: f"{name}@{table['version']} ({table['rows']:,} rows)"
        for name, table in lineage["tables"].items()
        if table["version"] is not None
    }
    features = {name: f"{name}@{version}" for name, version in lineage["feature_tables"].items()}
    environment = lineage["environment"]
    words |= {
        "tables": ", ".join(tables.values()) or "none",
        "simulated": "yes" if lineage["simulated"] else "no",
        "validation": _describe_result(lineage["validation"]),
        "feature_tables": ", ".join(features.values()) or "none",
        "environment": f"Python {environment['python']}, packages {environment['packages']}",
    }
    return {f"lineage.{name}": value[:TAG_LIMIT] for name, value in words.items()}


def _describe_result(validation: Mapping[str, str]) -> str:
    if not validation:
        return "none of exactly these versions"
    result = "passed" if validation["success"] == "true" else "failed"
    return f"{result}, run {validation['run_id']}"


def describe_environment() -> dict[str, str]:
    """Return the interpreter, and the digest of every installed distribution by version."""
    frozen = freeze_environment()
    return {
        "python": platform.python_version(),
        "packages": hashlib.sha256(frozen.encode()).hexdigest(),
    }


@cache
def freeze_environment() -> str:
    """Return one `name==version` a line for every installed distribution, as pip freeze does."""
    # Read once: each of `name` and `version` parses the whole file anew.
    described = [distribution.metadata for distribution in distributions()]
    packages = {f"{one['Name'].lower()}=={one['Version']}" for one in described if one["Name"]}
    return "\n".join(sorted(packages)) + "\n"


def log_environment() -> None:
    """Log the installed and the required packages to the active MLflow run."""
    mlflow.log_text(freeze_environment(), "environment/packages.txt")
    lock = PROJECT / "requirements.lock"
    if lock.exists():  # an image may be built without it
        mlflow.log_artifact(str(lock), "environment")


def find_validation(versions: Mapping[str, int | None]) -> dict[str, str]:
    """Return run, experiment and result of the newest validation of these very versions.

    Empty if they were never validated: a reviewer must be able to see that.
    """
    conditions = [f"tags.`version.{name}` = '{version}'" for name, version in versions.items()]
    runs = mlflow.search_runs(
        experiment_names=[VALIDATION_EXPERIMENT],
        filter_string=" AND ".join(conditions),
        order_by=["attributes.start_time DESC"],
        max_results=1,
        output_format="list",
    )
    return next((_describe_validation(run) for run in runs), {})


def _describe_validation(run: Run) -> dict[str, str]:
    return {
        "run_id": run.info.run_id,
        "experiment_id": run.info.experiment_id,
        "success": run.data.tags["success"],
    }


def log_data_inputs(lake_url: str) -> None:
    """Log every landed table with version and digest as an input of the active MLflow run."""
    for name in LANDED_TABLES:
        state = describe_table(lake_url, name)
        if state.version is not None:
            mlflow.log_input(LakeTable(lake_url, state), context="training")


class LakeTable(MetaDataset):
    """A landed table as an MLflow dataset: where, which version, how many rows; no row."""

    def __init__(self, lake_url: str, state: TableState) -> None:
        source = DeltaDatasetSource(
            path=locate_table(lake_url, state.name), delta_table_version=state.version
        )
        # MLflow keeps 36 characters of a digest.
        super().__init__(source, f"{state.name}@{state.version}", state.digest[:36])
        self._rows = state.rows

    @property
    def profile(self) -> dict[str, int]:
        return {"rows": self._rows}

    def to_dict(self) -> dict[str, str]:
        return {**super().to_dict(), "profile": json.dumps(self.profile)}


def hash_feature_service(service: FeatureService) -> str:
    """Return the SHA-256 of the names and types a model is given."""
    columns = [
        f"{projection.name}:{feature.name}:{feature.dtype}"
        for projection in service.feature_view_projections
        for feature in projection.features
    ]
    return hashlib.sha256("\n".join([service.name, *sorted(columns)]).encode()).hexdigest()


def find_git_commit() -> str:
    """Return the commit of the running code, "unknown" outside a checkout.

    An image carries it in the variable GIT_COMMIT instead.
    """
    if commit := os.environ.get("GIT_COMMIT"):
        return commit
    asked = ["git", "-C", str(PROJECT), "rev-parse", "--verify", "HEAD"]
    try:
        completed = subprocess.run(asked, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git in this image
        return "unknown"
    return completed.stdout.strip() or "unknown"
