"""A release learnt twice: evaluated without the newest and the held-out, deployed with them."""

from datetime import date, timedelta

import mlflow
import numpy as np
import polars as pl
import pytest
from prefect import flow

from feature_repo.pseudonyms import pseudonymise
from flows.datasets.training_set import FUTURE_WEEKS, TrainingSet, split_rows
from flows.evaluation.drift_reference import REFERENCE_DAYS, summarise_training
from flows.evaluation.releasing import LearntRelease, learn_release
from flows.models.assembly import predict_release
from flows.models.families import load_families
from serving.scoring.estimate import Inputs
from tests.fixtures.drawn_rows import NAMES, draw_rows
from tests.fixtures.landed_tables import SALT
from tests.fixtures.learnt_releases import open_learnt

PEOPLE, VISITS = 300, 8
START, EVERY = date(2023, 1, 1), timedelta(days=100)
#: From this visit on outcomes are four times as likely by odds.
MOVED_FROM = 5
FAMILIES = ("logistic_regression", "lightgbm", "isolation_forest")


def draw_moving_population(seed: int = 3) -> TrainingSet:
    """Return people whose outcomes follow PHQ-9, and become more frequent at MOVED_FROM."""
    rows = draw_rows(PEOPLE * VISITS, seed)
    visit = np.tile(np.arange(VISITS), PEOPLE)
    total = np.nan_to_num(rows.features[:, NAMES.index("phq9_total")], nan=8.0)
    log_odds = 0.25 * (total - 8) - 1.5 + np.log(4) * (visit >= MOVED_FROM)
    random = np.random.default_rng(seed)
    adverse, worse = (
        random.random(len(visit)) < 1 / (1 + np.exp(-log_odds + shift)) for shift in (0.0, 0.7)
    )
    names = [pseudonymise(f"p{n}", SALT) for n in range(PEOPLE)]
    frame = pl.DataFrame(
        {
            "anonymized_id": [name for name in names for _ in range(VISITS)],
            "index_date": [START + EVERY * int(n) for n in visit],
            "adverse_course": adverse,
            "worsening": worse,
            "age": [40.0] * len(visit),
        }
    )
    futures = np.full((len(visit), FUTURE_WEEKS), np.nan, np.float32)
    split = split_rows(frame["anonymized_id"], frame["index_date"])
    return TrainingSet(frame, rows, futures, split)


@pytest.fixture(scope="module")
def population() -> TrainingSet:
    return draw_moving_population()


@pytest.fixture(scope="module")
def learnt(prefect_server, tmp_path_factory, population) -> tuple[LearntRelease, LearntRelease]:
    """The evaluated release and the one that has seen everything."""
    folder = tmp_path_factory.mktemp("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    mlflow.set_experiment(
        experiment_id=mlflow.create_experiment("releasing", (folder / "artifacts").as_uri())
    )
    return learn_twice(population)


@flow(validate_parameters=False)
def learn_twice(population: TrainingSet) -> tuple[LearntRelease, LearntRelease]:
    families = load_families(FAMILIES)
    everything = population.use_everything()
    with mlflow.start_run() as run:
        evaluated = learn_release(families, population, {}, run.info.run_id, 7)
        deployed = learn_release(families, everything, {}, run.info.run_id, 7, evaluated)
    return evaluated, deployed


def compare_recent(release: LearntRelease, population: TrainingSet) -> float:
    """Return observed over expected outcomes of the held-out, who are all of the last visits."""
    chosen = population.split.held_out
    rows = population.rows.select(chosen)
    said = predict_release(release.priority.members, release.manifest, rows)
    return float(population.labels[chosen].sum() / said.sum())


def test_the_deployed_release_follows_a_population_that_has_moved(learnt, population):
    evaluated, deployed = learnt

    assert compare_recent(evaluated, population) > 1.4
    assert 0.8 < compare_recent(deployed, population) < 1.25


def test_everything_leaves_out_no_rows_but_those_who_stop_the_fit(population):
    everything = population.use_everything().split
    newest = (population.frame["index_date"] == population.frame["index_date"].max()).to_numpy()

    assert (everything.fitting ^ everything.stopping).all()
    assert everything.fitting[population.split.held_out].all()
    assert everything.fitting[newest].mean() > 0.85


def test_the_drift_reference_is_what_was_fitted_on(learnt, population):
    people = population.frame.select("anonymized_id").unique()
    stated = people.with_columns(sex=pl.lit("female"), ethnicity=pl.lit(None, pl.String))
    everything = population.use_everything()
    _, deployed = learnt
    stored = everything.rows.features[:300]
    reference = summarise_training(
        everything, stated, deployed.priority, deployed.manifest, stored, 1
    )

    days = population.frame["index_date"]
    recent = (days > days.max() - timedelta(days=REFERENCE_DAYS)).to_numpy()
    assert reference.rows == (everything.split.fitting & recent).sum()
    assert reference.batches.rows == 300


def test_too_few_people_with_stored_data_are_no_reference_of_batches(learnt, population):
    everything, (_, deployed) = population.use_everything(), learnt
    no_rows = everything.rows.features[:0]
    people = population.frame.select("anonymized_id").unique()
    stated = people.with_columns(sex=pl.lit("female"), ethnicity=pl.lit(None, pl.String))
    reference = summarise_training(
        everything, stated, deployed.priority, deployed.manifest, no_rows, 1
    )
    assert reference.batches is None


def test_the_deployed_release_keeps_the_margins_that_were_measured(learnt):
    evaluated, deployed = learnt

    assert deployed.priority.halvings is None
    assert deployed.manifest.uncertainty.margin == evaluated.manifest.uncertainty.margin
    margins = [one.manifest.worsening.uncertainty.margin for one in learnt]
    assert margins[0] == margins[1]


def test_a_member_that_was_not_fitted_again_is_pinned_as_evaluated(learnt):
    evaluated, _ = learnt
    assert [pin.name for pin in evaluated.list_watching(["lightgbm"])] == ["logistic_regression"]


def test_what_is_opened_gives_what_was_learnt(learnt, population):
    evaluated, _ = learnt
    release = open_learnt(evaluated)
    rows = population.rows.select(np.arange(50))
    for name, member in evaluated.priority.members.items():
        served = release.members[name].predict_many(Inputs(rows.features, rows.sequences))
        assert served == pytest.approx(member.predict(rows), abs=1e-5), name
    assert release.forest is not None
