"""What is kept of a comparison: a row for the API, tables and pages in MLflow, words."""

import json
import uuid
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow

from flows.evaluation.outcome_drift import describe_outcomes
from mlruns_config.model_card import render_page
from monitoring.drift import DriftResult
from monitoring.outcome_drift import GroupDrift, OutcomeDrift
from serving.database.tables import DriftReport
from serving.predictions.drift_records import Dataset, ScreenedSample

#: The alarm of the score itself, at DRIFT_THRESHOLD.
OVERALL = "overall"


@dataclass(frozen=True)
class Window:
    """The time, and the kind, of the screenings that are compared with a release."""

    version: int
    begin: datetime
    end: datetime
    dataset: Dataset = "requests"


@dataclass(frozen=True)
class MeasuredDrift:
    """Drift of columns, of outcomes and of groups in one window."""

    result: DriftResult
    outcomes: OutcomeDrift
    groups: list[GroupDrift]

    def list_alarms(self, threshold: float) -> list[str]:
        """Return what raises an alarm: modalities, and OVERALL where the score reaches it."""
        overall = [OVERALL] if self.result.drift_score >= threshold else []
        return [*self.result.alarms, *overall]

    def describe(self) -> str:
        return f"{describe(self.result)}\n\n{describe_outcomes(self.outcomes, self.groups)}"


#: The page to open first: the farthest drift is on top of it, and nothing is cut off.
SUMMARY_PAGE = "summary.html"


def log_files(drift: MeasuredDrift, title: str) -> None:
    """Log the tables, a page of them, and Evidently's page and JSON to the active MLflow run."""
    result, groups = drift.result, [group.to_dict() for group in drift.groups]
    mlflow.log_text(json.dumps(describe_columns(result), indent=1), "columns.json")
    outcomes = {"overall": drift.outcomes.to_dict(), "groups": groups}
    mlflow.log_text(json.dumps(outcomes, indent=1), "outcomes.json")
    mlflow.log_text(drift.describe(), "summary.md")
    mlflow.log_text(render_page(f"# {title}\n\n{drift.describe()}"), SUMMARY_PAGE)
    if result.snapshot is None:
        return
    with TemporaryDirectory() as folder:
        page, values = Path(folder) / "drift.html", Path(folder) / "drift.json"
        result.snapshot.save_html(str(page))
        result.snapshot.save_json(str(values))
        for file in (page, values):
            mlflow.log_artifact(str(file))


def make_summary(
    window: Window, sample: ScreenedSample, drift: MeasuredDrift, threshold: float, run_id: str
) -> DriftReport:
    result = drift.result
    return DriftReport(
        id=uuid.uuid4(),
        created_at=window.end,
        release_version=window.version,
        window_begin=window.begin,
        window_end=window.end,
        rows_screened=sample.screened,
        rows_tested=result.rows_current,
        drift_score=result.drift_score,
        drifted_share=result.drifted_share,
        missing_drifted_share=result.missing_share,
        scores_drifted=None if result.score is None else result.score.drifted,
        threshold=threshold,
        dataset=window.dataset,
        alarms=drift.list_alarms(threshold),
        run_id=run_id,
        columns=describe_columns(result),
        outcomes=drift.outcomes.to_dict(),
        groups=[group.to_dict() for group in drift.groups],
    )


def describe_columns(result: DriftResult) -> dict[str, dict[str, object]]:
    """Return every column's test and missing shares by name, the score's among them."""
    tested = [*result.columns, *([] if result.score is None else [result.score])]
    return {column.column: asdict(column) | {"drifted": column.drifted} for column in tested}


def describe(result: DriftResult) -> str:
    """Return the drifted columns as Markdown, the farthest beyond its bound first."""
    alarms = ", ".join(result.alarms) or "none"
    lines = [
        f"Drifted columns hold {result.drift_score:.1%} of the release's feature importance, on "
        f"{result.rows_current:,} screenings. Modalities with an alarm: {alarms}.",
        "",
        "| column | modality | importance | distance | bound | missing then | missing now |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    tested = [*result.columns, *([] if result.score is None else [result.score])]
    for column in sorted(tested, key=lambda column: column.strength, reverse=True):
        if column.drifted:
            value = (
                f"{column.value:.3f} | {column.threshold:.3f}"
                if column.value is not None
                else " | "
            )
            lines.append(
                f"| {column.column} | {column.modality} | {column.importance:.3f} | {value} | "
                f"{column.missing_reference:.0%} | {column.missing_current:.0%} |"
            )
    return "\n".join(lines)
