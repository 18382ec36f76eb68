"""The model card of a release, filled from its evaluation and logged to its MLflow run."""

import mlflow
import polars as pl

from feature_repo.outcomes import HORIZON_DAYS
from flows.datasets.labels import INDEX_DATE
from flows.datasets.training_set import TrainingSet
from flows.evaluation.report import Evaluation
from flows.evaluation.selection import Decision
from mlruns_config.manifest import ReleaseManifest
from mlruns_config.model_card import CARD_FILE, CARD_PAGE, CardFacts, render_card, render_page


def log_card(
    manifest: ReleaseManifest,
    evaluation: Evaluation,
    decisions: list[Decision],
    training_set: TrainingSet,
) -> str:
    """Log the model card (Markdown and page) to the active run; return the Markdown."""
    dates = training_set.frame[INDEX_DATE]

    def show(table: str, if_empty: str) -> str:
        return describe_table(evaluation.get_table(table), if_empty)

    facts = CardFacts(
        metrics=evaluation.metrics,
        metrics_table=evaluation.to_markdown(),
        calibration_table=describe_table(
            evaluation.get_table("calibration"), "No row was held out."
        ),
        coverage_table=show("coverage", "No row was held out."),
        not_judged_table=describe_table(
            evaluation.get_table("not_judged"), "Every group was assessed."
        ),
        groups_table=describe_table(
            evaluation.get_table("fairness"), "No group is large enough to be assessed."
        ),
        decisions=describe_decisions(manifest, decisions),
        split_in_time=training_set.split.by_time,
        period=(dates.min(), dates.max()),  # type: ignore[arg-type]
        horizon_days=HORIZON_DAYS,
    )
    card = render_card(manifest, facts)
    mlflow.log_text(card, CARD_FILE)
    mlflow.log_text(render_page(card), CARD_PAGE)
    return card


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
