"""Learning one outcome: members fitted, weighed, calibrated, and fitted again on other people."""

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import mlflow
import polars as pl
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner
from threadpoolctl import threadpool_limits

from feature_repo.catalogue import list_model_inputs
from feature_repo.outcomes import Outcome
from feature_repo.stored_views import JOIN_KEY
from flows.datasets.rows import ModelRows, Probabilities, number_individuals
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
    calibrate_rows,
    fit_halves,
    make_interval,
    measure_margin,
    measure_straying,
    predict_rows,
)
from flows.models.member import DividedFit, FitMember, FittedMember, FittingData
from flows.models.out_of_fold import CrossFitted, cross_fit
from flows.models.refits import FittedRefits, Refits, draw_counts
from flows.models.registration import register_member
from flows.models.side_by_side import FITS_AT_ONCE, open_other_process
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
    refits: FittedRefits | None
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
    decisions = select_members(
        out_of_fold, data.labels, number_individuals(people), seed, f"{prefix}{BASELINE}"
    )
    mlflow.set_tags(
        {f"member.{step}{decision.member}": decision.describe() for decision in decisions}
    )
    joined = {f"{prefix}{BASELINE}", *(decision.member for decision in decisions if decision.joins)}
    chosen = {name: probabilities for name, probabilities in out_of_fold.items() if name in joined}
    unseen = gather_unseen(training_set, members, cross_fitted)
    stacker = fit_stacker(chosen, data.labels)
    head, probabilities = assemble_head(outcome, unseen, stacker)
    refitted = {name: one.refits for name, one in fitted.items() if one.refits is not None}
    refits = {name: one.refits for name, one in refitted.items()}
    halvings = None
    if margin is None:
        halvings = fit_weighed_halves(families, prefix, members, data, people, stacker)
        margin = _find_margin(head, members, refits, unseen, halvings)
    head = _add_interval(head, members, refitted, data.rows, margin)
    return LearntHead(
        head=head,
        members=members,
        refits=refits,
        pins=[member_fit.pin for member_fit in fitted.values()],
        decisions=decisions,
        probabilities=probabilities,
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
    """Fit the tabular families side by side, then each network; all in the order of `families`.

    The networks share one more process, which imports torch in the meantime.
    """
    run = mlflow.active_run()
    shared = {"data": data, "people": people, "step": step, "parent": run and run.info.run_id}
    with open_other_process() as other:
        networks = [family for family, fit in families.items() if isinstance(fit, DividedFit)]
        if networks:
            other.submit(load_families, networks)
        given: dict[str, dict[str, Any]] = {
            family: {"name": f"{prefix}{family}", "family": family, "fit": fit, "other": other}
            | shared
            for family, fit in families.items()
        }
        fitted = _fit_side_by_side({n: one for n, one in given.items() if n not in networks})
        fitted |= {family: fit_member(**given[family]) for family in networks}
    return {f"{prefix}{family}": fitted[family] for family in families}


def _fit_side_by_side(given: Mapping[str, dict[str, Any]]) -> dict[str, _Fitted]:
    # One limit around all of them: those of their own fits would lift each other's.
    with threadpool_limits(1), ThreadPoolTaskRunner[_Fitted](max_workers=FITS_AT_ONCE) as runner:
        futures = {family: runner.submit(fit_member, one) for family, one in given.items()}
        return {family: future.result() for family, future in futures.items()}


@task(cache_policy=NO_CACHE, task_run_name="fit-{name}")
def fit_member(
    name: str,
    family: str,
    fit: FitMember,
    data: FittingData,
    people: pl.Series,
    other: Executor,
    step: str,
    parent: str | None,
) -> _Fitted:
    """Fit one member in a child run, by fold and on resampled people too, and register it.

    `parent` is the run of the training: the active one is that of this thread.
    """
    run_name = name_member_run(name, step)
    with mlflow.start_run(run_name=run_name, nested=True, parent_run_id=parent) as run:
        begun = perf_counter()
        cross_fitted = cross_fit(data, people, fit, find_fit_each(family, other))
        member = cross_fitted.member
        refit = load_refits([family]).get(family)
        refits = refit(member, data, draw_counts(people, data.seed)) if refit else None
        mlflow.log_metric("fitting_seconds", perf_counter() - begun)
        fitted = FittedRefits(refits, refits.predict_log_odds(data.rows)) if refits else None
        pin = register_member(name, family, member, data.rows, run.info.run_id, fitted)
        return _Fitted(cross_fitted, fitted, pin)


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
    outputs = predict_rows(members, refits, trial, rows)
    straying = measure_straying(halvings, trial, rows)
    return measure_margin(calibrate_rows(trial, outputs), bound_rows(trial, outputs), straying)


def _add_interval(
    head: Head,
    members: Mapping[str, FittedMember],
    refitted: Mapping[str, FittedRefits],
    rows: ModelRows,
    margin: float,
) -> Head:
    """Return the head with its interval; the widths are those of the rows it was fitted on."""
    trial = head.model_copy(update={"uncertainty": make_interval(margin)})
    outputs = predict_rows(members, {}, trial, rows)
    again = {name: one.log_odds for name, one in refitted.items()}
    widths = bound_rows(trial, replace(outputs, refits=again)).width
    return head.model_copy(update={"uncertainty": make_interval(margin, widths)})
