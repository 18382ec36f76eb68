"""The model card of a release, filled from its evaluation and logged to its MLflow run."""

import json
from collections.abc import Mapping
from dataclasses import asdict

import mlflow
import polars as pl

from feature_repo.outcomes import HORIZON_DAYS
from flows.datasets.labels import INDEX_DATE
from flows.datasets.training_set import TrainingSet
from flows.evaluation.metrics import Interval
from flows.evaluation.report import Evaluation
from flows.evaluation.selection import Decision
from mlruns_config.applied_model_card import write_applied_card
from mlruns_config.checklists import RunFacts
from mlruns_config.manifest import ReleaseManifest
from mlruns_config.model_card import CARD_FILE, CARD_PAGE, CardFacts, render_card, render_page
from mlruns_config.source_attributes import (
    APPLIED_CARD_FILE,
    ATTRIBUTES_FILE,
    Attribute,
    AttributeFacts,
    list_attributes,
)


def log_card(
    manifest: ReleaseManifest,
    evaluation: Evaluation,
    decisions: list[Decision],
    training_set: TrainingSet,
    reason: str = "",
) -> str:
    """Log the model card (Markdown and page) to the active run; return the Markdown.

    `reason` is why the release was made, empty where the run states none.
    Beside it the source attributes of ONC HTI-1 (JSON) and CHAI's Applied Model Card (XML).
    """
    dates = training_set.frame[INDEX_DATE]
    run = gather_facts(manifest, evaluation, training_set)

    def show(table: str, if_empty: str) -> str:
        return describe_table(evaluation.get_table(table), if_empty)

    about = AttributeFacts(
        run=run,
        period=(dates.min(), dates.max()),
        groups_table=show("fairness", "not available: no group is large enough to be assessed"),
        baseline_table=show("baseline", "not available: no person was trained on"),
    )
    attributes = list_attributes(about)
    facts = CardFacts(
        run=run,
        attributes=attributes,
        metrics=evaluation.metrics,
        metrics_table=evaluation.to_markdown(),
        parts_table=show("parts", "None."),
        baseline_table=show("baseline", "None."),
        outcome_table=show("outcome", "None."),
        excluded_table=show("excluded", "Nothing was left out."),
        learning_table=show("learning_curve", "Not measured."),
        calibration_table=show("calibration", "No row was held out."),
        coverage_table=show("coverage", "No row was held out."),
        not_judged_table=show("not_judged", "Every group was assessed."),
        groups_table=show("fairness", "No group is large enough to be assessed."),
        decisions=describe_decisions(manifest, decisions),
        split_in_time=training_set.split.by_time,
        period=(dates.min(), dates.max()),  # type: ignore[arg-type]
        horizon_days=HORIZON_DAYS,
        reason=reason,
    )
    card = render_card(manifest, facts)
    mlflow.log_text(card, CARD_FILE)
    mlflow.log_text(render_page(card), CARD_PAGE)
    log_attributes(about, attributes)
    return card


def log_attributes(about: AttributeFacts, attributes: list[Attribute]) -> None:
    """Log the source attributes, and CHAI's card made of them, to the active run."""
    listed = [asdict(attribute) | {"open": attribute.is_open} for attribute in attributes]
    mlflow.log_text(json.dumps(listed, indent=1), ATTRIBUTES_FILE)
    mlflow.log_text(write_applied_card(about, attributes), APPLIED_CARD_FILE)


def gather_facts(
    manifest: ReleaseManifest, evaluation: Evaluation, training_set: TrainingSet
) -> RunFacts:
    """Return what the checklists read of the run, the ends of intervals among its metrics."""
    parts = {
        str(row["part"]): (int(row["index dates"]), int(row["with the outcome"]))
        for row in evaluation.get_table("parts").iter_rows(named=True)
    }
    return RunFacts(
        manifest=manifest,
        metrics=evaluation.metrics | name_ends(evaluation.intervals),
        parts=parts,
        excluded=training_set.excluded,
        split_in_time=training_set.split.by_time,
        groups_assessed=evaluation.get_table("fairness").height,
        groups_not_assessed=evaluation.get_table("not_judged").height,
    )


def name_ends(intervals: Mapping[str, Interval]) -> dict[str, float]:
    """Return the ends of intervals as `<metric>_low` and `<metric>_high`."""
    ends = {
        name: dict(zip(("low", "high"), bounds, strict=True)) for name, bounds in intervals.items()
    }
    return {f"{name}_{end}": value for name, both in ends.items() for end, value in both.items()}


def describe_decisions(manifest: ReleaseManifest, decisions: list[Decision]) -> dict[str, str]:
    """Return why each member joined or not; of the one that estimates nothing, what it does."""
    words = {decision.member: decision.describe() for decision in decisions}
    if manifest.familiarity is not None:
        words[manifest.familiarity.member] = "estimates nothing: measures unfamiliarity"
    return words


def describe_table(table: pl.DataFrame, if_empty: str) -> str:
    """Return a table as Markdown."""
    if table.is_empty():
        return if_empty
    lines = ["| " + " | ".join(table.columns) + " |", "|---" * table.width + "|"]
    for row in table.iter_rows():
        cells = [f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
