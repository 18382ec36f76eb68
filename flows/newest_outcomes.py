"""Production on the labelled outcomes that it was not trained on, for the retraining flow."""

from dataclasses import dataclass, replace
from datetime import date

import mlflow
from mlflow import MlflowClient
from prefect import task
from prefect.cache_policies import NO_CACHE

from feature_repo.feast_library import FeatureStore
from feature_repo.online_store import REPOSITORY
from feature_repo.stored_views import JOIN_KEY
from flows.comparison import open_earlier
from flows.datasets.lineage import TAG_LIMIT
from flows.datasets.loading import NotEnoughLabelsError
from flows.datasets.unseen import UnseenSet, load_newest_set
from flows.evaluation.comparison import ComparedRows, Comparison, compare_predictions
from flows.evaluation.held_out import HeldOut
from flows.evaluation.measures import Measures, measure_scored
from flows.evaluation.recalibration import Recalibration, move_others, offer_recalibration
from flows.evaluation.report import describe_metrics
from flows.evaluation.sufficiency import Choice, OnNewest, choose_challenger
from flows.evaluation.unseen import score_unseen
from flows.models.registered import (
    RegisteredRelease,
    UnusableReleaseError,
    open_deployed_release,
)
from flows.recalibration import Offered, keep_metrics
from flows.runtime.database import open_database
from flows.runtime.retries import IO_RETRIES
from mlruns_config.manifest import ReleaseManifest
from mlruns_config.registry.transitions import Registry, find_production, open_registry
from serving.settings import get_settings

#: One seed for all: the same data give the same choice.
SEED = 7
#: In a release's lineage: the last index date that it was trained on.
FITTED_UNTIL = "fitted_until"
MEASURES_FILE = "evaluation/production_on_newest_outcomes.md"
OF_NEWEST = "individuals with outcomes that Production was not trained on"


@dataclass(frozen=True)
class NewestOutcomes:
    """The choice of a challenger, and what it rests on; without rows to assess on, no more."""

    choice: Choice
    period: tuple[date, date] | None = None
    measures: Measures | None = None
    offer: Recalibration | None = None
    comparison: Comparison | None = None

    def take_offer(self) -> Offered | None:
        """Return what the challenger is recalibrated by; None where one is newly trained."""
        if not self.choice.recalibrates or self.offer is None or self.period is None:
            return None
        first, last = self.period
        return Offered(
            offer=self.offer,
            source=f"newest labelled outcomes of index dates {first} to {last}",
            lineage={"newest_outcomes": [str(first), str(last)]},
            fitted_until=str(last),
            keeps_ranking=True,
        )

    def log(self, client: MlflowClient, run_id: str) -> None:
        """Log the choice and what it rests on to the run of a challenger."""
        client.set_tag(run_id, "challenger", self.choice.describe()[:TAG_LIMIT])
        if self.measures is not None:
            table = describe_metrics(self.measures.metrics, self.measures.intervals)
            client.log_text(run_id, table, MEASURES_FILE)


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def assess_production() -> NewestOutcomes:
    """Choose whether Production recalibrated suffices, by its newest labelled outcomes.

    Where it cannot be assessed on them the choice is to train a new one, and gives the reason.
    """
    settings = get_settings()
    mlflow.set_tracking_uri(settings.mlflow_tracking_uri)
    with open_database() as engine:
        registry = open_registry(settings.mlflow_tracking_uri, engine)
        production = find_production(registry)
        if production is None:
            return NewestOutcomes(Choice(False, "no release is in Production"))
        try:
            release = open_deployed_release(registry, production)
            unseen = load_unseen(registry, release.manifest, settings.lake_url)
        except (UnusableReleaseError, NotEnoughLabelsError) as shortage:
            return NewestOutcomes(Choice(False, str(shortage)))
        return assess_on_newest(registry, release, unseen)


def load_unseen(registry: Registry, manifest: ReleaseManifest, lake_url: str) -> UnseenSet:
    """Return the rows that a release was not trained on; raises NotEnoughLabelsError."""
    until = manifest.lineage.get(FITTED_UNTIL)
    if until is None:
        raise NotEnoughLabelsError("Production does not state until when it was trained on data")
    store = FeatureStore(repo_path=str(REPOSITORY))
    fitted_until = date.fromisoformat(until)
    return load_newest_set(store, registry.engine, lake_url, fitted_until, manifest.created_at)


def assess_on_newest(
    registry: Registry, release: RegisteredRelease, unseen: UnseenSet
) -> NewestOutcomes:
    """Assess a release on rows that it was not trained on and choose a challenger."""
    scored = score_unseen(unseen, release, SEED)
    measures = measure_scored(scored, unseen.people, release.manifest)
    then = registry.client.get_run(release.manifest.training_run_id).data.metrics
    newest = OnNewest(then.get("auroc"), measures.metrics, measures.intervals)
    offer = offer_recalibration(
        scored,
        unseen.people,
        release.manifest,
        measures.intervals,
        release.version,
        release.manifest.is_simulated,
    )
    if offer is not None:
        comparison = compare_with_moved(registry, release, scored, offer)
        shown = offer.metrics | keep_metrics(then, keeps_ranking=True) | comparison.to_metrics()
        newest = replace(newest, offer=offer, comparison=comparison, gate_metrics=shown)
    choice = choose_challenger(newest, registry.gates)
    return NewestOutcomes(choice, unseen.find_period(), measures, offer, newest.comparison)


def compare_with_moved(
    registry: Registry, release: RegisteredRelease, scored: HeldOut, offer: Recalibration
) -> Comparison:
    """Compare a release recalibrated with itself, and with those in Production before it.

    Releases made later may have been trained on these rows and are left out.
    """
    made_at = release.manifest.created_at
    theirs = {
        rival.version: rival.predict(scored.rows)
        for rival in open_earlier(registry, {release.version})
        if rival.manifest.created_at < made_at
    }
    rows = ComparedRows(
        labels=scored.labels,
        people=scored.frame[JOIN_KEY],
        ours=move_others(offer.kind, scored),
        theirs=theirs | {release.version: scored.probabilities},
    )
    # It has no version yet.
    return replace(compare_predictions(rows, 0, release.version), source=OF_NEWEST)
