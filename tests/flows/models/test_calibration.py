"""Calibration: monotone, bounded, chosen on later months of other individuals."""

from datetime import date

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from feature_repo.outcomes import HORIZON_DAYS
from flows.models.calibration import (
    MAPS,
    TooFewOutcomesError,
    choose_calibration,
    divide_rows,
)

FIRST_DAY = date(2023, 1, 1).toordinal() - date(1970, 1, 1).toordinal()
probabilities = st.floats(0, 1, allow_nan=False)
quick = settings(deadline=None, max_examples=60)


def draw(rows: int = 600, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = random.beta(1, 5, rows)
    return truth, random.random(rows) < truth


def name_people(rows: int, each: int = 3) -> pl.Series:
    return pl.Series([f"person {n // each}" for n in range(rows)])


def spread_dates(rows: int, days: int = 700, seed: int = 5) -> pl.Series:
    drawn = FIRST_DAY + np.random.default_rng(seed).integers(0, days, rows)
    return pl.Series(drawn.astype(np.int32)).cast(pl.Date)


def choose(stacked: np.ndarray, labels: np.ndarray, days: int = 700) -> str:
    rows = len(labels)
    return choose_calibration(stacked, labels, name_people(rows), spread_dates(rows, days)).kind


@pytest.mark.parametrize("days", [1, 700])
def test_too_few_outcomes_to_calibrate_on_are_refused_in_words(days):
    with pytest.raises(TooFewOutcomesError, match="12 rows of 4 individuals, 0 with the outcome"):
        choose(np.linspace(0.1, 0.9, 12), np.zeros(12, bool), days)


def test_rows_of_too_few_individuals_are_refused():
    truth, labels = draw(60)
    with pytest.raises(TooFewOutcomesError, match="1 individuals"):
        choose_calibration(truth, labels, name_people(60, each=60), spread_dates(60))


@pytest.mark.parametrize("kind", MAPS)
def test_calibration_brings_rates_back(kind):
    truth, labels = draw(5000)
    distorted = truth**2 / (truth**2 + (1 - truth) ** 2)
    mapped = MAPS[kind](distorted, labels).apply(distorted)

    assert np.abs(mapped - truth).mean() < 0.03
    assert np.abs(distorted - truth).mean() > 0.06


@quick
@given(
    st.lists(st.tuples(probabilities, st.booleans()), min_size=4, max_size=60),
    st.lists(probabilities, min_size=2, max_size=30),
)
@example([(1.0, True), (0.0, False)], [0.0, 1.0])
@example([(0.0, False), (1.0, False), (0.9999999999999999, False)], [0.0, 0.0])
def test_calibration_is_monotone_and_bounded(rows, asked):
    rows = [*rows, (0.2, True), (0.4, False)]
    stacked, labels = (np.array(column) for column in zip(*rows, strict=True))
    for fit in MAPS.values():
        mapped = fit(stacked, labels).apply(np.array(sorted([0.0, *asked, 1.0])))
        assert (np.diff(mapped) >= 0).all()
        assert ((mapped >= 0) & (mapped <= 1)).all()


@pytest.mark.parametrize("kind", MAPS)
@pytest.mark.parametrize("spread", [0.002, 0.05])
def test_predictions_that_rank_the_wrong_way_are_mapped_to_the_overall_rate(kind, spread):
    # As where nothing is known: a fold without some outcomes estimates more for those it lacks.
    random = np.random.default_rng(3)
    labels = random.random(6000) < 0.18
    stacked = 0.18 - spread * (labels - 0.18) + random.normal(0, 0.001, 6000)
    mapped = MAPS[kind](stacked, labels).apply(np.array([0.15, 0.18, 0.21]))
    np.testing.assert_allclose(mapped, labels.mean(), atol=0.02)


def test_no_isotonic_rate_is_certain_because_its_rows_are_few():
    stacked = np.array([0.05, 0.1, 0.2, 0.3, 0.8, 0.9])
    outputs = MAPS["isotonic"](stacked, np.array([0, 0, 0, 1, 1, 1], bool)).outputs

    assert 0.05 < min(outputs) < max(outputs) < 0.95


def test_the_simplest_map_is_chosen_where_rows_are_few():
    assert choose(*draw(300, seed=4)) == "platt"


def test_an_isotonic_map_is_chosen_where_the_others_cannot_bend():
    random = np.random.default_rng(1)
    stacked = random.random(6000)
    labels = random.random(6000) < np.where(stacked < 0.5, 0.05, 0.6)  # a step
    assert choose(stacked, labels) == "isotonic"


def test_a_kind_that_held_only_in_early_months_is_not_chosen():
    random = np.random.default_rng(2)
    stacked, dates = random.random(9000), spread_dates(9000)
    early = (dates < dates.quantile(0.5)).to_numpy()
    step = np.where(stacked < 0.5, 0.05, 0.6)
    labels = random.random(9000) < np.where(early, step, stacked)
    people = name_people(9000)

    assert choose_calibration(stacked, labels, people, dates).kind != "isotonic"
    assert choose_calibration(stacked, labels, people, spread_dates(9000, 1)).kind == "isotonic"


def test_nothing_is_asked_whose_person_or_time_was_learnt_from():
    _, labels = draw(3000)
    people, dates = name_people(3000), spread_dates(3000)
    folds = divide_rows(labels, people, dates)

    assert len(folds) == 12
    for learnt, asked in folds:
        assert not set(people[learnt]) & set(people[asked])
        assert (dates[asked].min() - dates[learnt].max()).days > HORIZON_DAYS
    assert len(np.concatenate([asked for _, asked in folds])) == pytest.approx(1500, abs=15)
    assert dates[np.concatenate([asked for _, asked in folds])].max() == dates.max()


def test_rows_of_one_month_are_divided_by_individual_alone():
    _, labels = draw(300)
    folds = divide_rows(labels, name_people(300), spread_dates(300, days=20))

    assert len(folds) == 4
    assert sorted(np.concatenate([asked for _, asked in folds])) == list(range(300))
