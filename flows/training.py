"""The training flow: from landed rows to a registered, gated release."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import mlflow
from mlflow import MlflowClient
from prefect import flow, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from feature_repo.stored_views import JOIN_KEY
from flows.comparison import compare_with_production
from flows.datasets.lineage import (
    TAG_LIMIT,
    describe_lineage,
    describe_tags,
    log_data_inputs,
    log_environment,
)
from flows.datasets.loading import load_training_set
from flows.datasets.stored_rows import load_stored_features
from flows.datasets.training_set import TrainingSet
from flows.evaluation.card import log_card
from flows.evaluation.comparison import Comparison
from flows.evaluation.drift_reference import log_drift_reference, summarise_training
from flows.evaluation.learning_curve import measure_learning_curve
from flows.evaluation.releasing import learn_release
from flows.evaluation.report import Evaluation, evaluate_release, log_evaluation
from flows.lake.origin import is_simulated
from flows.lake.tables import scan_table
from flows.models.families import FAMILIES, load_families
from flows.models.registration import register_release
from flows.runtime.database import open_database
from flows.runtime.flow_run import name_flow_run
from flows.runtime.locks import run_alone
from flows.runtime.notifications import NOTIFICATION_HOOKS
from mlruns_config.data_origin import note_origin
from mlruns_config.experiments import TRAINING, open_experiment
from mlruns_config.pages import locate_run
from mlruns_config.registry.transitions import PromotionRefusedError, open_registry, promote
from serving.database.sessions import create_database_engine
from serving.releases.signatures import make_release_signer
from serving.settings import get_settings

EXPERIMENT = TRAINING
#: A training with the sequence networks takes an hour; ten times that is no training any more.
HOURS = 12
#: Time of a run in its name (UTC).
MINUTE = "%Y-%m-%d %H:%M"

PromotedTo = Literal["Staging", "Production"]


@dataclass(frozen=True)
class TrainingReport:
    """What a training came to."""

    run_id: str
    release_version: int
    stage: str
    metrics: dict[str, float] = field(default_factory=dict)
    refused: str = ""


@flow(name="training", timeout_seconds=HOURS * 3600, **NOTIFICATION_HOOKS)
def train(
    seed: int = 7,
    actor: str = "training flow",
    members: Sequence[str] = FAMILIES,
    promote_to: PromotedTo = "Production",
    reason: str = "",
) -> TrainingReport:
    """Fit, stack, calibrate, evaluate, register and, if the gates allow, promote a release.

    What comes of it is compared with the release in Production on the same held-out people. A
    release that fails a gate stays in Staging; the report and the ledger say why. Raises
    UnknownFamilyError, NotEnoughLabelsError when there is too little to learn from, and
    AlreadyRunningError while another training runs.

    Args:
        seed: The same seed and data give the same release.
        actor: Who is named in the promotion ledger.
        members: Model families to fit; the logistic regression always is.
        promote_to: The stage it reaches automatically; in Staging it waits for a gradual rollout.
        reason: Why, for the promotion ledger, the run and the card.
    """
    families = load_families(members)
    with run_alone("training"):
        return _train(families, seed, actor, promote_to, reason)


def _train(
    families: dict[str, Any], seed: int, actor: str, promote_to: PromotedTo, reason: str
) -> TrainingReport:
    settings = get_settings()
    mlflow.set_tracking_uri(settings.mlflow_tracking_uri)
    open_experiment(EXPERIMENT)
    training_set = load_training_set(settings.lake_url)
    begun = datetime.now(UTC)
    # At once: should this process be killed, the tag tells which run of ours it was.
    with mlflow.start_run(run_name=f"training {begun:{MINUTE}}", tags=name_flow_run()) as run:
        run_id = run.info.run_id
        version, evaluation = _make_release(training_set, families, seed, run_id, reason)
    name_training(run_id, version, begun)
    comparison = compare_with_production(training_set, version)
    metrics = evaluation.metrics | (comparison.to_metrics() if comparison else {})
    report = promote_release(run_id, version, metrics, actor, promote_to, reason)
    _leave_artifacts(report, evaluation, comparison)
    return report


def _make_release(
    training_set: TrainingSet, families: dict[str, Any], seed: int, run_id: str, reason: str
) -> tuple[int, Evaluation]:
    lake_url = get_settings().lake_url
    lineage = describe_lineage(lake_url) | {"fitted_until": training_set.find_last_day()}
    with open_database() as engine:  # a state from before the notes has none
        note_origin(engine, is_simulated=bool(lineage["simulated"]))
    log_data_inputs(lake_url)
    log_environment()
    mlflow.set_tags(describe_tags(lineage) | ({"reason": reason[:TAG_LIMIT]} if reason else {}))
    mlflow.log_params(
        {
            "seed": seed,
            "rows": training_set.frame.height,
            "rows_of_screenings": training_set.screened_rows,
            "rows_left_out_by_reviews": training_set.doubted_rows,
        }
    )
    evaluated = learn_release(families, training_set, lineage, run_id, seed)
    people = scan_table(lake_url, "people").select(JOIN_KEY, "sex", "ethnicity").collect()
    evaluation = evaluate_release(training_set, people, evaluated, seed)
    curve = measure_learning_curve(families, training_set, seed)
    evaluation = evaluation.add_table("learning_curve", curve)
    log_evaluation(evaluation)
    # What was evaluated is the procedure; what is deployed has seen everything (ADR 0066).
    everything = training_set.use_everything()
    chosen = evaluated.choose_families(families)
    learnt = learn_release(chosen, everything, lineage, run_id, seed, evaluated)
    manifest = learnt.manifest
    stored = load_stored_features()
    log_drift_reference(
        summarise_training(everything, people, learnt.priority, manifest, stored, seed)
    )
    card = log_card(manifest, evaluation, evaluated.list_decisions(), everything, reason)
    signer = make_release_signer(get_settings())
    return register_release(manifest, run_id, card, evaluated.manifest, signer), evaluation


def name_training(run_id: str, version: int, begun: datetime) -> None:
    """Name a training's run by the release that it registered, and by whose data it was."""
    people = "simulated people" if is_simulated(get_settings().lake_url) else "people"
    name = f"release {version}, trained on {people} {begun:{MINUTE}}"
    MlflowClient().update_run(run_id, name=name)


@task(cache_policy=NO_CACHE)
def promote_release(
    run_id: str, version: int, metrics: dict[str, float], actor: str, promote_to: str, reason: str
) -> TrainingReport:
    """Put the release to Staging, then, if it is to go there, through the gates to Production."""
    settings = get_settings()
    engine = create_database_engine(settings.database_url.get_secret_value())
    registry = open_registry(settings.mlflow_tracking_uri, engine)
    try:
        promote(registry, version, "Staging", actor, reason or "trained")
        if promote_to == "Production":
            promote(registry, version, "Production", actor, reason or "trained")
    except PromotionRefusedError as refusal:
        return TrainingReport(run_id, version, "Staging", metrics, str(refusal))
    finally:
        engine.dispose()
    return TrainingReport(run_id, version, promote_to, metrics)


def _leave_artifacts(
    report: TrainingReport, evaluation: Evaluation, comparison: Comparison | None
) -> None:
    uri = get_settings().mlflow_tracking_uri
    experiment = mlflow.get_run(report.run_id).info.experiment_id
    link = locate_run(experiment, report.run_id, host=uri)
    create_link_artifact(link, link_text="MLflow run of this training", key="training-run")
    outcome = report.refused or f"release {report.release_version} is {report.stage}"
    rival = comparison.to_markdown() if comparison else "No other release is in Production."
    create_markdown_artifact(
        f"{outcome}\n\n{rival}\n\n{evaluation.to_markdown()}", key="training-metrics"
    )
