"""What is kept of an external validation: an MLflow run, a section of the card, a tag."""

from dataclasses import dataclass
from datetime import UTC, date, datetime

import mlflow
from mlflow import MlflowClient
from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.datasets.lineage import find_git_commit
from flows.evaluation.card import describe_table
from flows.evaluation.recalibration import OFFER_FILE, Recalibration
from flows.evaluation.report import Evaluation, log_evaluation
from flows.evaluation.unseen import PRECISE_FROM
from flows.runtime.flow_run import describe_flow_run
from flows.runtime.retries import IO_RETRIES
from mlruns_config.experiments import EXTERNAL_VALIDATION, open_experiment
from mlruns_config.external_validation import (
    TAG,
    ExternalFacts,
    add_to_card,
    add_to_description,
    write_section,
)
from mlruns_config.manifest import RELEASE_MODEL, ReleaseManifest
from mlruns_config.model_card import CARD_FILE, CARD_PAGE, render_page
from serving.settings import get_settings

EXPERIMENT = EXTERNAL_VALIDATION
NO_OFFER = "none is called for: the intervals of observed/expected and of the slope hold 1."
NO_HELP = "it would not lower the Brier score of these individuals; none is offered."


@dataclass(frozen=True)
class Validation:
    """A release, the data it was assessed on, and what was found."""

    release: int
    manifest: ReleaseManifest
    source: str
    simulated: bool
    known: int
    period: tuple[date, date]
    evaluation: Evaluation
    offer: Recalibration | None

    def describe_recalibration(self) -> str:
        """Return one sentence on the offered recalibration, or why there is none."""
        if self.offer is not None:
            return f"{self.offer.describe()}. Not applied: the flow `recalibration` makes it."
        intervals = self.evaluation.intervals
        held = [intervals[name] for name in ("observed_over_expected", "calibration_slope")]
        return NO_OFFER if all(low <= 1 <= high for low, high in held) else NO_HELP

    def describe_precision(self) -> str:
        """Return a sentence where fewer than PRECISE_FROM rows have or lack the outcome."""
        metrics = self.evaluation.metrics
        fewest = min(metrics["outcomes"], metrics["rows"] - metrics["outcomes"])
        if fewest >= PRECISE_FROM:
            return ""
        return f"Imprecise: fewer than {PRECISE_FROM} index dates have, or lack, the outcome."

    def describe(self, run_id: str) -> ExternalFacts:
        """Return what the card holds of it; `run_id` is the MLflow run it was logged to."""
        evaluation = self.evaluation
        run = mlflow.get_run(run_id)
        return ExternalFacts(
            run_id=run_id,
            experiment_id=str(run.info.experiment_id),
            made_at=datetime.fromtimestamp(run.info.start_time / 1000, UTC),
            source=self.source,
            simulated=self.simulated,
            trained_on_simulated=self.manifest.is_simulated,
            period=self.period,
            known=self.known,
            metrics=evaluation.metrics,
            intervals=evaluation.intervals,
            groups_table=describe_table(evaluation.get_table("fairness"), "None is large enough."),
            not_judged_table=describe_table(evaluation.get_table("not_judged"), "None."),
            calibration_table=describe_table(evaluation.get_table("calibration"), "None."),
            few=self.describe_precision(),
            recalibration=self.describe_recalibration(),
        )


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def log_validation(validation: Validation) -> str:
    """Log metrics, tables, plots and the offered recalibration to an MLflow run; return its id."""
    mlflow.set_tracking_uri(get_settings().mlflow_tracking_uri)
    open_experiment(EXPERIMENT)
    name = f"release {validation.release} on {validation.source}"
    with mlflow.start_run(run_name=name) as run:
        mlflow.log_params(
            {
                "release_version": validation.release,
                "source": validation.source,
                "simulated": validation.simulated,
                "first_index_date": str(validation.period[0]),
                "last_index_date": str(validation.period[1]),
                "individuals_known_here_left_out": validation.known,
            }
        )
        mlflow.set_tags(_describe_lineage(validation))
        log_evaluation(validation.evaluation)
        if validation.offer is not None:
            mlflow.log_text(validation.offer.model_dump_json(indent=2), OFFER_FILE)
    run_id = str(run.info.run_id)
    section = write_section(validation.describe(run_id))
    MlflowClient().log_text(run_id, section, "external_validation.md")
    return run_id


def _describe_lineage(validation: Validation) -> dict[str, str]:
    return {
        "lineage.release": f"{RELEASE_MODEL} {validation.release}",
        "lineage.training_run": validation.manifest.training_run_id,
        "lineage.git_commit": find_git_commit(),
        **{f"lineage.{name}": value for name, value in describe_flow_run().items()},
    }


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def publish_validation(validation: Validation, run_id: str) -> None:
    """Add the validation to the release's card, description and tags."""
    client, version = MlflowClient(), str(validation.release)
    facts = validation.describe(run_id)
    registered = client.get_model_version(RELEASE_MODEL, version)
    made_by = str(registered.run_id)
    card = mlflow.artifacts.load_text(f"runs:/{made_by}/{CARD_FILE}")
    longer = add_to_card(card, facts)
    client.log_text(made_by, longer, CARD_FILE)
    client.log_text(made_by, render_page(longer), CARD_PAGE)
    description = add_to_description(registered.description or "", facts)
    client.update_model_version(RELEASE_MODEL, version, description=description)
    client.set_model_version_tag(RELEASE_MODEL, version, f"{TAG}{run_id}", facts.summarise())
