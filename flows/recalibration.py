"""The recalibration flow: a new release that differs from another in its calibration alone.

It makes what an external validation offered; the retraining flow makes one of its own offers by the
same functions. The new version goes to Staging; to Production it
goes like every other, through the gates and by a person or a rollout.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import mlflow
from mlflow import MlflowClient
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from flows.evaluation.external_record import EXPERIMENT as VALIDATIONS
from flows.evaluation.recalibration import (
    OFFER_FILE,
    Recalibration,
    move_reference,
    recalibrate_manifest,
)
from flows.models.registration import register_release
from flows.runtime.flow_run import name_flow_run
from flows.runtime.notifications import NOTIFICATION_HOOKS
from flows.runtime.releases import hold_registry
from flows.training import EXPERIMENT
from mlruns_config.experiments import open_experiment
from mlruns_config.integrity import list_damage
from mlruns_config.manifest import RELEASE_MODEL, ReleaseManifest
from mlruns_config.model_card import CARD_FILE, CARD_PAGE, add_notice, render_page
from mlruns_config.registry.transitions import (
    Registry,
    promote,
    read_evaluated,
    read_manifest,
)
from monitoring.drift_reference import REFERENCE_FILE, DriftReference
from serving.releases.signatures import make_release_signer
from serving.settings import get_settings

#: Gate metrics that a recalibration leaves as they were: those of the members, and of the maps of
#: the missing patterns among each other, which it moves alike.
OF_THE_MEMBERS = (
    "scoring_milliseconds",
    "interval_coverage_miss",
    "interval_coverage",
    "pattern_ratio_miss",
)
#: How metrics of ranking begin, which moving all probabilities alike does not change.
OF_RANKING = ("auroc", "auprc", "worst_group_auroc")
#: What metrics of a comparison with other releases hold in their names.
OF_COMPARISON = "_vs_"


class NoRecalibrationError(ValueError):
    """The named validation offers no recalibration that this release could take."""


@dataclass(frozen=True)
class Offered:
    """An offered recalibration and where it comes from.

    `source` are words for the card, `lineage` what names it in the manifest, and `fitted_until`
    the last index date that the two numbers were fitted on, None where they are of other people.
    Where the people are those of this state, `keeps_ranking`: the ranking was evaluated on more of
    them than the offer was.
    """

    offer: Recalibration
    source: str
    lineage: dict[str, object]
    fitted_until: str | None = None
    keeps_ranking: bool = False


@flow(name="recalibration", timeout_seconds=3600, **NOTIFICATION_HOOKS)
def recalibrate(validation_run: str, actor: str = "recalibration flow") -> int:
    """Register the recalibrated release that an external validation offered; return its version.

    Its metrics are those of the validation, each row scored by numbers fitted on other
    individuals. Raises NoRecalibrationError where the run offers none, or real and simulated
    people would be mixed.

    Args:
        validation_run: MLflow run of the external validation whose offer is accepted.
        actor: Who is named in the promotion ledger.
    """
    mlflow.set_tracking_uri(get_settings().mlflow_tracking_uri)
    offer = read_offer(validation_run)
    with hold_registry() as registry:
        source = f"data of validation run `{validation_run}`"
        offered = Offered(offer, source, {"validation_run": validation_run})
        version = register_recalibrated(registry, offered)
        promote(registry, version, "Staging", actor, f"recalibrated by run {validation_run}")
    text = f"release {version}: {RELEASE_MODEL} {offer.release} recalibrated, {offer.describe()}"
    get_run_logger().info(text)
    create_markdown_artifact(text, key="recalibration")
    return version


@task(cache_policy=NO_CACHE)
def read_offer(validation_run: str) -> Recalibration:
    """Return the offer of a validation; raises NoRecalibrationError where there is none."""
    client = MlflowClient()
    experiment = client.get_experiment_by_name(VALIDATIONS)
    runs = client.search_runs(
        [experiment.experiment_id] if experiment else [], f"attributes.run_id = '{validation_run}'"
    )
    folder = OFFER_FILE.partition("/")[0]
    if not runs or not client.list_artifacts(validation_run, folder):
        raise NoRecalibrationError(
            f"run {validation_run} is no external validation that offers a recalibration"
        )
    text = mlflow.artifacts.load_text(f"runs:/{validation_run}/{OFFER_FILE}")
    return Recalibration.model_validate_json(text)


# Not tried again: a second try would register a second version.
@task(cache_policy=NO_CACHE)
def register_recalibrated(registry: Registry, offered: Offered, reason: str = "") -> int:
    """Register the recalibrated release as a version of its own; `reason` goes to the card.

    Raises NoRecalibrationError where its two numbers may not move the release.
    """
    offer = offered.offer
    original = read_manifest(registry, offer.release)
    if original.is_simulated != offer.simulated:
        raise NoRecalibrationError(
            "a release of simulated people is not recalibrated on real ones, nor the other way "
            "round: its numbers would be of both"
        )
    if damage := list_damage(registry.client, offer.release):
        raise NoRecalibrationError(f"{RELEASE_MODEL} {offer.release}: {'; '.join(damage)}")
    open_experiment(EXPERIMENT)
    name = f"recalibration of release {offer.release}"
    with mlflow.start_run(run_name=name, tags=name_flow_run()) as run:
        run_id = str(run.info.run_id)
        changes = {
            "created_at": datetime.now(UTC),
            "training_run_id": run_id,
            "lineage": extend_lineage(original.lineage, offered),
        }
        manifest = recalibrate_manifest(original, offer).model_copy(update=changes)
        evaluated = recalibrate_manifest(read_evaluated(registry, offer.release), offer)
        card = log_recalibrated(registry, offered, original, reason)
        signer = make_release_signer(get_settings())
        return register_release(manifest, run_id, card, evaluated, signer)


def extend_lineage(lineage: Mapping[str, object], offered: Offered) -> dict[str, object]:
    """Return the lineage of a release recalibrated by an offer.

    `fitted_until` is never moved back: the members have seen the days before it, even if the
    outcomes of the offer are of earlier days of other people.
    """
    offer, until = offered.offer, offered.fitted_until
    described = {"of_release": offer.release, "intercept": offer.intercept, "slope": offer.slope}
    longer = {**lineage, "recalibration": described | offered.lineage}
    if until is not None:
        longer["fitted_until"] = max(until, str(lineage.get("fitted_until", until)))
    return longer


def log_recalibrated(
    registry: Registry, offered: Offered, original: ReleaseManifest, reason: str
) -> str:
    """Log parameters, gate metrics, drift reference and card to the active run; return the card."""
    offer, made_by = offered.offer, original.training_run_id
    described = {"intercept": offer.intercept, "slope": offer.slope} | offered.lineage
    mlflow.log_params({"recalibrated_release": offer.release} | described)
    mlflow.set_tag("lineage.recalibration", f"of release {offer.release} on {offered.source}")
    then = registry.client.get_run(made_by).data.metrics
    mlflow.log_metrics(offer.metrics | keep_metrics(then, offered.keeps_ranking))
    text = mlflow.artifacts.load_text(f"runs:/{made_by}/{REFERENCE_FILE}")
    reference = move_reference(DriftReference.model_validate_json(text), offer)
    mlflow.log_text(reference.model_dump_json(indent=1), REFERENCE_FILE)
    before = mlflow.artifacts.load_text(f"runs:/{made_by}/{CARD_FILE}")
    card = add_notice(
        before,
        f"Release {offer.release}, recalibrated on the {offered.source}: {offer.describe()}. "
        f"{f'Reason: {reason}. ' if reason else ''}"
        f"All below is of release {offer.release} before that.",
    )
    mlflow.log_text(card, CARD_FILE)
    mlflow.log_text(render_page(card), CARD_PAGE)
    return card


def keep_metrics(metrics: Mapping[str, float], keeps_ranking: bool) -> dict[str, float]:
    """Return the metrics that a recalibration leaves as they were at the evaluation."""
    kept = {name: metrics[name] for name in OF_THE_MEMBERS if name in metrics}
    if not keeps_ranking:
        return kept
    return kept | {
        name: value
        for name, value in metrics.items()
        if name.startswith(OF_RANKING) and OF_COMPARISON not in name
    }
