"""The training flow: from landed rows to a registered, gated release."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import perf_counter
from typing import Literal

import mlflow
import numpy as np
import polars as pl
from prefect import flow, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from feature_repo.catalogue import list_model_inputs
from feature_repo.individual import JOIN_KEY
from flows.comparison import compare_with_production
from flows.datasets.lineage import describe_lineage, log_data_inputs, log_environment
from flows.datasets.loading import load_training_set
from flows.datasets.training_set import TrainingSet
from flows.evaluation.comparison import Comparison
from flows.evaluation.drift_reference import log_drift_reference, summarise_training
from flows.evaluation.report import Evaluation, evaluate_release, log_card, log_evaluation
from flows.evaluation.selection import Decision, select_members
from flows.lake.tables import scan_table
from flows.models.assembly import assemble_release, gather_unseen, predict_all
from flows.models.families import BASELINE, FAMILIES, load_families
from flows.models.member import FitMember, FittedMember, FittingData
from flows.models.out_of_fold import CrossFitted, cross_fit
from flows.models.registration import register_member, register_release
from flows.models.stacking import fit_stacker
from flows.models.surrogate import explain_manifest
from flows.runtime.flow_run import name_flow_run
from flows.runtime.locks import run_alone
from flows.runtime.notifications import NOTIFICATION_HOOKS
from mlruns_config.manifest import MemberPin, Stacker
from mlruns_config.registry.transitions import PromotionRefusedError, open_registry, promote
from serving.database.sessions import create_database_engine
from serving.settings import get_settings

EXPERIMENT = "mhras-training"
#: A training with the sequence networks takes an hour; ten times that is no training any more.
HOURS = 12

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
        promote_to: How far it goes by itself; in Staging it waits for a gradual rollout.
    """
    families = load_families(members)
    with run_alone("training"):
        return _train(families, seed, actor, promote_to)


def _train(
    families: dict[str, FitMember], seed: int, actor: str, promote_to: PromotedTo
) -> TrainingReport:
    settings = get_settings()
    mlflow.set_tracking_uri(settings.mlflow_tracking_uri)
    mlflow.set_experiment(EXPERIMENT)
    training_set = load_training_set(settings.lake_url)
    name = f"training {datetime.now(UTC):%Y-%m-%d %H:%M}"
    # At once: should this process be killed, the tag tells which run of ours it was.
    with mlflow.start_run(run_name=name, tags=name_flow_run()) as run:
        version, evaluation = _make_release(training_set, families, seed, run.info.run_id)
    comparison = compare_with_production(training_set, version)
    metrics = evaluation.metrics | (comparison.to_metrics() if comparison else {})
    report = promote_release(run.info.run_id, version, metrics, actor, promote_to)
    _leave_artifacts(report, evaluation, comparison)
    return report


def _make_release(
    training_set: TrainingSet, families: dict[str, FitMember], seed: int, run_id: str
) -> tuple[int, Evaluation]:
    lake_url = get_settings().lake_url
    lineage = describe_lineage(lake_url)
    log_data_inputs(lake_url)
    log_environment()
    mlflow.set_tags({f"lineage.{name}": str(value)[:5000] for name, value in lineage.items()})
    mlflow.log_params(
        {
            "seed": seed,
            "rows": training_set.frame.height,
            "rows_of_screenings": training_set.screened_rows,
            "rows_left_out_by_reviews": training_set.doubted_rows,
        }
    )
    fitted = fit_members(families, make_fitting_data(training_set, seed), training_set)
    unseen = gather_unseen(training_set, fitted.members, fitted.cross_fitted)
    manifest = assemble_release(
        training_set, unseen, fitted.pins, fitted.stacker, lineage, run_id, seed
    )
    manifest = explain_manifest(manifest, training_set, fitted.members, seed)
    people = scan_table(lake_url, "people").select(JOIN_KEY, "sex", "ethnicity").collect()
    evaluation = evaluate_release(
        training_set, people, fitted.members, manifest, fitted.decisions, seed
    )
    log_evaluation(evaluation)
    log_drift_reference(summarise_training(training_set, people, fitted.members, manifest))
    card = log_card(manifest, evaluation, fitted.decisions, training_set)
    return register_release(manifest, run_id, card), evaluation


@dataclass(frozen=True)
class FittedMembers:
    """Every member, fitted and registered, and how the stack weighs them."""

    members: dict[str, FittedMember]
    cross_fitted: dict[str, CrossFitted]
    pins: list[MemberPin]
    stacker: Stacker
    decisions: list[Decision]


def fit_members(
    families: dict[str, FitMember], data: FittingData, training_set: TrainingSet
) -> FittedMembers:
    """Fit every family, then weigh those that earn their place out of fold."""
    individuals = training_set.frame[JOIN_KEY].filter(pl.Series(training_set.split.fitting))
    members, cross_fitted, pins = {}, {}, []
    for name, fit in families.items():
        members[name], cross_fitted[name], pin = fit_member(name, fit, data, individuals)
        pins.append(pin)
    out_of_fold = predict_all(cross_fitted, data.rows)
    names = individuals.to_numpy().astype(np.str_)
    decisions = select_members(out_of_fold, data.labels, names, data.seed)
    joined = {BASELINE, *(decision.member for decision in decisions if decision.joins)}
    mlflow.set_tags({f"member.{one.member}": one.describe() for one in decisions})
    chosen = {name: predicted for name, predicted in out_of_fold.items() if name in joined}
    return FittedMembers(members, cross_fitted, pins, fit_stacker(chosen, data.labels), decisions)


def make_fitting_data(training_set: TrainingSet, seed: int) -> FittingData:
    fitting, stopping = training_set.split.fitting, training_set.split.stopping
    return FittingData(
        names=tuple(column.name for column in list_model_inputs()),
        rows=training_set.rows.select(fitting),
        labels=training_set.labels[fitting],
        futures=training_set.futures[fitting],
        stopping_rows=training_set.rows.select(stopping),
        stopping_labels=training_set.labels[stopping],
        stopping_futures=training_set.futures[stopping],
        seed=seed,
    )


@task(cache_policy=NO_CACHE, task_run_name="fit-{name}")
def fit_member(
    name: str, fit: FitMember, data: FittingData, individuals: pl.Series
) -> tuple[FittedMember, CrossFitted, MemberPin]:
    """Fit one member in a child run; return it, its members by fold and its pin."""
    with mlflow.start_run(run_name=name, nested=True) as run:
        begun = perf_counter()
        cross_fitted = cross_fit(data, individuals, fit)
        member = fit(data)
        mlflow.log_metric("fitting_seconds", perf_counter() - begun)
        pin = register_member(name, member, data.rows, run.info.run_id)
        return member, cross_fitted, pin


@task(cache_policy=NO_CACHE)
def promote_release(
    run_id: str, version: int, metrics: dict[str, float], actor: str, promote_to: str
) -> TrainingReport:
    """Put the release to Staging, then, if it is to go there, through the gates to Production."""
    settings = get_settings()
    engine = create_database_engine(settings.database_url.get_secret_value())
    registry = open_registry(settings.mlflow_tracking_uri, engine)
    try:
        promote(registry, version, "Staging", actor, "trained")
        if promote_to == "Production":
            promote(registry, version, "Production", actor, "trained")
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
    link = f"{uri}/#/experiments/{experiment}/runs/{report.run_id}"
    create_link_artifact(link, link_text="MLflow run of this training", key="training-run")
    outcome = report.refused or f"release {report.release_version} is {report.stage}"
    rival = comparison.to_markdown() if comparison else "No other release is in Production."
    create_markdown_artifact(
        f"{outcome}\n\n{rival}\n\n{evaluation.to_markdown()}", key="training-metrics"
    )
