"""Learning one outcome: members fitted, weighed, calibrated, and fitted again on other people."""

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from time import perf_counter

import mlflow
import numpy as np
import polars as pl
from prefect import task
from prefect.cache_policies import NO_CACHE

from feature_repo.catalogue import list_model_inputs
from feature_repo.outcomes import Outcome
from feature_repo.stored_views import JOIN_KEY
from flows.datasets.rows import Labels, Probabilities
from flows.datasets.training_set import TrainingSet
from flows.evaluation.selection import Decision, select_members
from flows.models.assembly import UnseenRows, assemble_head, gather_unseen, predict_all
from flows.models.families import (
    BASELINE,
    REFITTED_FAMILIES,
    find_fit_each,
    load_families,
    load_refits,
)
from flows.models.interval import (
    Halves,
    bound_rows,
    fit_halves,
    make_interval,
    measure_margin,
    measure_straying,
    predict_head,
)
from flows.models.member import DividedFit, FitMember, FittedMember, FittingData
from flows.models.out_of_fold import CrossFitted, cross_fit
from flows.models.refits import Refits, draw_counts
from flows.models.registration import register_member
from flows.models.side_by_side import open_other_process
from flows.models.stacking import fit_stacker
from mlruns_config.heads import Head, Stacker
from mlruns_config.manifest import MemberPin

Families = Mapping[str, FitMember]


@dataclass(frozen=True)
class LearntHead:
    """One outcome's members by name, how they are weighed, and what they say of one person.

    `probabilities` are those of the rows that calibrate, by members that did not see them;
    `halvings` is None where the margin of the interval was not measured anew.
    """

    head: Head
    members: dict[str, FittedMember]
    refits: dict[str, Refits]
    pins: list[MemberPin]
    decisions: list[Decision]
    probabilities: Probabilities
    halvings: list[Halves] | None


@dataclass(frozen=True)
class _Fitted:
    cross_fitted: CrossFitted
    refits: Refits | None
    pin: MemberPin


def learn_outcome(
    outcome: Outcome,
    families: Families,
    training_set: TrainingSet,
    seed: int,
    prefix: str = "",
    margin: float | None = None,
    step: str = "",
) -> LearntHead:
    """Fit every family, weigh those that earn their place out of fold, calibrate the stack.

    `prefix` begins the names of the members, "worsening_" say. With a `margin` that of the
    interval is taken from an evaluated release instead of being measured. `step` begins the
    names of the child runs.
    """
    data = make_fitting_data(training_set, seed)
    people = training_set.frame[JOIN_KEY].filter(pl.Series(training_set.split.fitting))
    fitted = fit_members(families, prefix, data, people, step)
    members = {name: member_fit.cross_fitted.member for name, member_fit in fitted.items()}
    cross_fitted = {name: member_fit.cross_fitted for name, member_fit in fitted.items()}
    out_of_fold = predict_all(cross_fitted, data.rows)
    decisions = _select(out_of_fold, data.labels, people, seed, f"{prefix}{BASELINE}")
    mlflow.set_tags(
        {f"member.{step}{decision.member}": decision.describe() for decision in decisions}
    )
    joined = {f"{prefix}{BASELINE}", *(decision.member for decision in decisions if decision.joins)}
    chosen = {name: probabilities for name, probabilities in out_of_fold.items() if name in joined}
    unseen = gather_unseen(training_set, members, cross_fitted)
    stacker = fit_stacker(chosen, data.labels)
    head = assemble_head(outcome, unseen, stacker)
    refits = {
        name: member_fit.refits
        for name, member_fit in fitted.items()
        if member_fit.refits is not None
    }
    halvings = None
    if margin is None:
        halvings = fit_weighed_halves(families, prefix, members, data, people, stacker)
        margin = _find_margin(head, members, refits, unseen, halvings)
    head = _add_interval(head, members, refits, data, margin)
    return LearntHead(
        head=head,
        members=members,
        refits=refits,
        pins=[member_fit.pin for member_fit in fitted.values()],
        decisions=decisions,
        probabilities=unseen.predict(head),
        halvings=halvings,
    )


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


def name_member_run(name: str, step: str) -> str:
    """Return the name of a member's run: whether it was evaluated or is deployed."""
    return f"{name}, evaluated" if step else f"{name}, deployed: fitted on everything"


def fit_members(
    families: Families, prefix: str, data: FittingData, people: pl.Series, step: str
) -> dict[str, _Fitted]:
    """Fit every family in turn; the networks share one more process.

    It imports torch, which takes ten seconds, while the families before them are fitted.
    """
    with open_other_process() as other:
        if any(isinstance(fit, DividedFit) for fit in families.values()):
            other.submit(load_families, list(families))
        return {
            f"{prefix}{name}": fit_member(f"{prefix}{name}", name, fit, data, people, other, step)
            for name, fit in families.items()
        }


@task(cache_policy=NO_CACHE, task_run_name="fit-{name}")
def fit_member(
    name: str,
    family: str,
    fit: FitMember,
    data: FittingData,
    people: pl.Series,
    other: Executor,
    step: str = "",
) -> _Fitted:
    """Fit one member in a child run, by fold and on resampled people too, and register it."""
    with mlflow.start_run(run_name=name_member_run(name, step), nested=True) as run:
        begun = perf_counter()
        refit = load_refits([family]).get(family)
        cross_fitted = cross_fit(data, people, fit, find_fit_each(family, other))
        member = cross_fitted.member
        counts = draw_counts(people, data.seed)
        refits = refit(member, data, counts) if refit is not None else None
        mlflow.log_metric("fitting_seconds", perf_counter() - begun)
        pin = register_member(name, family, member, data.rows, run.info.run_id, refits)
        return _Fitted(cross_fitted, refits, pin)


def _select(
    out_of_fold: Mapping[str, Probabilities],
    labels: Labels,
    people: pl.Series,
    seed: int,
    baseline: str,
) -> list[Decision]:
    names = people.to_numpy().astype(np.str_)
    return select_members(out_of_fold, labels, names, seed, baseline)


def fit_weighed_halves(
    families: Families,
    prefix: str,
    members: Mapping[str, FittedMember],
    data: FittingData,
    people: pl.Series,
    stacker: Stacker,
) -> list[Halves]:
    """Fit on halves of the people what an estimate depends on; the rest is the same in both.

    A network that is not weighed is not fitted ten times for nothing.
    """
    strays = {
        name: fit
        for name, fit in families.items()
        if name in REFITTED_FAMILIES or f"{prefix}{name}" in stacker.coefficients
    }
    names = {family: f"{prefix}{family}" for family in strays}
    return [
        Halves({**members, **halves.first}, {**members, **halves.second})
        for halves in fit_halves(strays, names, data, people)
    ]


def _find_margin(
    head: Head,
    members: Mapping[str, FittedMember],
    refits: Mapping[str, Refits],
    unseen: UnseenRows,
    halvings: list[Halves],
) -> float:
    """Measure the margin on the rows of people whom neither refits nor halves have seen."""
    _, rows = unseen.parts[-1]
    trial = head.model_copy(update={"uncertainty": make_interval(0.0)})
    bounds = bound_rows(members, refits, trial, rows)
    ours = predict_head(members, trial, rows)
    return measure_margin(ours, bounds, measure_straying(halvings, trial, rows))


def _add_interval(
    head: Head,
    members: Mapping[str, FittedMember],
    refits: Mapping[str, Refits],
    data: FittingData,
    margin: float,
) -> Head:
    """Return the head with its interval; the widths are those of the rows it was fitted on."""
    trial = head.model_copy(update={"uncertainty": make_interval(margin)})
    widths = bound_rows(members, refits, trial, data.rows).width
    return head.model_copy(update={"uncertainty": make_interval(margin, widths)})
