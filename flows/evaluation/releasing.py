"""Learning a release: the priority's outcome, the one beside it, and what is unfamiliar."""

from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import mlflow
import numpy as np
from numpy.typing import NDArray

from feature_repo.outcomes import ADVERSE_COURSE, SEVERE_FROM, WORSENING
from flows.datasets.labels import WORSENED
from flows.datasets.rows import Probabilities
from flows.datasets.training_set import TrainingSet
from flows.evaluation.learning import LearntHead, learn_outcome, make_fitting_data, name_member_run
from flows.evaluation.selection import Decision
from flows.models.assembly import assemble_release
from flows.models.calibration import TooFewOutcomesError, fit_platt
from flows.models.families import BASELINE, REFITTED_FAMILIES, UNFAMILIARITY
from flows.models.isolation_forest import UNFAMILIAR_SHARE, AnomalyForest
from flows.models.member import FitMember
from flows.models.registration import register_forest
from flows.models.surrogate import explain_manifest
from mlruns_config.heads import Calibration, WorseningHead
from mlruns_config.manifest import Familiarity, MemberPin, ReleaseManifest
from serving.scoring.estimate import stack_log_odds, to_probability

#: Names of the members of the second head begin so.
WORSENING_PREFIX = "worsening_"
#: Share of the people not severely ill yet who are called likely to worsen: what the queue can
#: bear beside the priority's own (tried in issue 14: 8.6 % of screenings together).
LIKELY_SHARE = 0.05
#: Fewer of either class among the fitting rows say nothing of a second outcome.
MIN_WORSENINGS = 40
#: Fewer of either class among the severely ill give no map of their own.
MIN_SEVERE = 20


@dataclass(frozen=True)
class LearntRelease:
    """A release with everything that went into it; `worsening` is None where too few worsened."""

    manifest: ReleaseManifest
    priority: LearntHead
    worsening: LearntHead | None
    forest: AnomalyForest | None

    def list_decisions(self) -> list[Decision]:
        """Return the decisions on the members of both outcomes."""
        beside = self.worsening.decisions if self.worsening else []
        return [*self.priority.decisions, *beside]

    def list_watching(self, families: Mapping[str, Any]) -> list[MemberPin]:
        """Return the pins of the members whose families are not among these."""
        return [pin for pin in self.priority.pins if pin.name not in families]

    def choose_families(self, families: Mapping[str, Any]) -> dict[str, Any]:
        """Return the families worth fitting on everything: the weighed, and the cheap ones."""
        kept = {*self.manifest.stacker.coefficients, *REFITTED_FAMILIES, UNFAMILIARITY}
        return {name: fit for name, fit in families.items() if name in kept}

    def take_margins(self) -> "Margins":
        beside = self.manifest.worsening
        return Margins(
            _read_margin(self.manifest), None if beside is None else _read_margin(beside)
        )


@dataclass(frozen=True)
class Margins:
    """The margins of the intervals that an evaluated release was found to need."""

    priority: float | None = None
    worsening: float | None = None


def _read_margin(head: Any) -> float:
    return float(head.uncertainty.margin)


def learn_release(
    families: Mapping[str, Any],
    training_set: TrainingSet,
    lineage: dict[str, Any],
    run_id: str,
    seed: int,
    evaluated: LearntRelease | None = None,
) -> LearntRelease:
    """Fit, weigh, calibrate and register everything a release pins.

    `families` may hold the one of UNFAMILIARITY, which estimates nothing. After an `evaluated`
    release the margins of its intervals are taken, and members that it did not weigh are pinned
    as they were evaluated.
    """
    margins, step = (evaluated.take_margins(), "") if evaluated else (Margins(), "evaluated ")
    watching = evaluated.list_watching(families) if evaluated else []
    estimating = {name: fit for name, fit in families.items() if name != UNFAMILIARITY}
    priority = learn_outcome(
        ADVERSE_COURSE, estimating, training_set, seed, margin=margins.priority, step=step
    )
    beside = learn_worsening(estimating, training_set, seed, margins.worsening, step)
    pins = [*priority.pins, *watching, *(beside[0].pins if beside else [])]
    forest, familiarity = None, None
    if UNFAMILIARITY in families:
        forest, pin = fit_forest(families[UNFAMILIARITY], training_set, seed, step)
        familiarity = Familiarity(member=pin.name, above=forest.above, share_above=UNFAMILIAR_SHARE)
        pins.append(pin)
    manifest = assemble_release(
        training_set, priority.head, priority.probabilities, pins, lineage, run_id
    )
    manifest = manifest.model_copy(
        update={"worsening": beside[1] if beside else None, "familiarity": familiarity}
    )
    manifest = explain_manifest(manifest, training_set, priority.members, seed)
    return LearntRelease(manifest, priority, beside[0] if beside else None, forest)


def fit_forest(
    fit: Any, training_set: TrainingSet, seed: int, step: str
) -> tuple[AnomalyForest, MemberPin]:
    """Fit the forest in a child run and register it."""
    data = make_fitting_data(training_set, seed)
    with mlflow.start_run(run_name=name_member_run(UNFAMILIARITY, step), nested=True) as run:
        begun = perf_counter()
        forest: AnomalyForest = fit(data)
        mlflow.log_metric("fitting_seconds", perf_counter() - begun)
        return forest, register_forest(forest, data.rows, run.info.run_id)


def learn_worsening(
    families: Mapping[str, FitMember],
    training_set: TrainingSet,
    seed: int,
    margin: float | None,
    step: str = "",
) -> tuple[LearntHead, WorseningHead] | None:
    """Learn the second outcome of the people who are not severely ill yet.

    None where too few of them worsened, or the second outcome cannot be calibrated; the tag
    `worsening` of the run says so.
    """
    severe = find_severe(training_set)
    beside = training_set.turn_to(WORSENED, ~severe)
    labels = beside.labels[beside.split.fitting]
    fewest = min(int(labels.sum()), int((~labels).sum()))
    if fewest < MIN_WORSENINGS:
        mlflow.set_tag("worsening", f"not estimated: {fewest} index dates of one class")
        return None
    cheap = {name: fit for name, fit in families.items() if name in REFITTED_FAMILIES}
    try:
        learnt = learn_outcome(WORSENING, cheap, beside, seed, WORSENING_PREFIX, margin, step)
    except TooFewOutcomesError as shortage:
        mlflow.set_tag("worsening", f"not estimated: {shortage}")
        return None
    head = WorseningHead(
        **learnt.head.model_dump(),
        members=list(learnt.members),
        likely_above=float(np.quantile(learnt.probabilities, 1 - LIKELY_SHARE)),
        severe_from=SEVERE_FROM,
        severe_calibration=calibrate_severe(learnt, training_set.turn_to(WORSENED, severe)),
    )
    return learnt, head


def find_severe(training_set: TrainingSet) -> NDArray[np.bool_]:
    """Return which index dates have a PHQ-9 so high that severity itself is the message.

    Bool [rows].
    """
    return np.asarray(training_set.read_phq9_totals() >= SEVERE_FROM)


def calibrate_severe(learnt: LearntHead, severe: TrainingSet) -> Calibration | None:
    """Return the map of the severely ill, of whom the members learnt nothing; None if too few."""
    chosen = severe.split.fitting | severe.split.calibration
    labels = severe.labels[chosen]
    if min(int(labels.sum()), int((~labels).sum())) < MIN_SEVERE:
        return None
    return fit_platt(stack_rows_of(learnt, severe, chosen), labels)


def stack_rows_of(
    learnt: LearntHead, training_set: TrainingSet, chosen: NDArray[np.bool_]
) -> Probabilities:
    """Return the stacked, not calibrated probabilities of the chosen rows.

    Float64 [chosen rows].
    """
    rows, stacker = training_set.rows.select(chosen), learnt.head.stacker
    names = list(stacker.coefficients) or [f"{WORSENING_PREFIX}{BASELINE}"]
    predictions = {name: learnt.members[name].predict(rows) for name in names}
    return np.asarray(to_probability(stack_log_odds(stacker, predictions) + np.zeros(len(rows))))
