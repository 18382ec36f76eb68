"""What a card holds of the data, the noise of the outcome and what more people would bring."""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from flows.datasets.training_set import FUTURE_WEEKS, Split, TrainingSet, find_input
from flows.evaluation.described_data import (
    describe_baseline,
    describe_exclusions,
    describe_outcome,
    describe_parts,
)
from flows.evaluation.learning import make_fitting_data
from flows.evaluation.learning_curve import measure_learning_curve
from flows.evaluation.noise_floor import RELIABILITY, measure_noise_floor
from flows.models.logistic_regression import fit as fit_linear
from tests.fixtures.drawn_rows import draw_fitting_data

ROWS, PEOPLE = 1200, 600


@pytest.fixture(scope="module")
def training_set() -> TrainingSet:
    """Two index dates of each of 600 people; a third of them held out, one in ten calibrated on."""
    data, person = draw_fitting_data(ROWS), np.arange(ROWS) // 2
    rows = data.rows
    rows.features[:, find_input("phq9_total")] = np.random.default_rng(1).integers(0, 28, ROWS)
    labels = pl.Series(data.labels)
    frame = pl.DataFrame(
        {
            "anonymized_id": [f"person {n}" for n in person],
            "index_date": [date(2025, 1, 1) + timedelta(days=200 * (n % 2)) for n in range(ROWS)],
            "adverse_course": labels,
            "worsening": labels & pl.Series(person % 2 == 0),
            "age": np.full(ROWS, 40.0),
        }
    )
    held_out, calibration = person % 3 == 0, person % 10 == 1
    calibration &= ~held_out
    fitting = ~held_out & ~calibration
    late = np.arange(ROWS) % 2 == 1
    split = Split(fitting, np.zeros(ROWS, bool), calibration, held_out & late)
    futures = np.full((ROWS, FUTURE_WEEKS), np.nan, np.float32)
    futures[:, 5] = 10
    excluded = {"PHQ-9 without another within 90 days": 7}
    return TrainingSet(frame, rows, futures, split, excluded=excluded)


def test_every_index_date_is_in_one_part_with_its_outcomes(training_set):
    parts = describe_parts(training_set)

    assert parts["index dates"].sum() == ROWS
    assert parts["with the outcome"].sum() == training_set.labels.sum()
    held = parts.row(by_predicate=pl.col("part") == "held out", named=True)
    assert (held["individuals"], held["index dates"]) == (200, 200)
    assert held["first"] == held["last"] == "2025-07-20"


def test_the_baseline_is_of_people_and_names_no_small_group(training_set):
    stated = pl.DataFrame(
        {
            "anonymized_id": [f"person {n}" for n in range(PEOPLE)],
            "sex": ["female"] * 400 + ["male"] * 195 + ["other"] * 5,
            "ethnicity": [None] * PEOPLE,
        },
        schema_overrides={"ethnicity": pl.String},
    )
    table = describe_baseline(training_set, stated)
    lines = dict(table.select("characteristic", "held out").iter_rows())

    assert lines["individuals"] == "200"
    assert lines["age, mean (sd)"] == "40.0 (0.0)"
    assert lines["sex: female"] == "67%"
    assert lines["sex: other or few"] == "33%"
    assert not [line for line in lines if "male" in line and "female" not in line]
    assert sum(int(lines[f"PHQ-9 {one}"][:-1]) for one in ("0-9", "10-14", "15-19", "20-27")) >= 98


def test_the_outcome_is_divided_into_what_it_is_made_of(training_set):
    found = dict(describe_outcome(training_set).select("index dates", "number").iter_rows())
    positive = found["with the outcome"]

    assert positive + found["without the outcome"] == ROWS
    rise, severe = list(found.values())[1:3]
    assert rise + severe == positive
    assert rise > 0
    assert severe > 0


def test_what_was_left_out_is_counted_by_reason(training_set):
    assert describe_exclusions(training_set).rows() == [("PHQ-9 without another within 90 days", 7)]


def test_the_noise_floor_is_what_errors_of_measurement_make_of_nobody_changing(training_set):
    floor = measure_noise_floor(training_set, 1)
    totals = training_set.read_phq9_totals()
    error = totals.std() * np.sqrt(1 - RELIABILITY)

    assert floor["standard_error_of_phq9"] == pytest.approx(error)
    # The severe stay severe, so the first is nearly their share; hardly anyone rises by five.
    assert 0.3 < floor["noise_floor_adverse_course"] < 0.6
    assert 0.0 < floor["noise_floor_worsening"] < 0.15


def test_without_a_later_phq9_there_is_no_noise_floor(training_set):
    unknown = np.full_like(training_set.futures, np.nan)
    assert measure_noise_floor(replace(training_set, futures=unknown), 1) == {}


def test_a_learning_curve_fits_parts_of_the_people_and_asks_the_held_out(training_set):
    curve = measure_learning_curve({"logistic_regression": fit_linear}, training_set, 1)

    assert curve["share"].to_list() == [0.25, 0.5, 1.0]
    assert curve["individuals"].is_sorted()
    everything = fit_linear(make_fitting_data(training_set, 1))
    held_out = training_set.split.held_out
    predicted = everything.predict(training_set.rows.select(held_out))
    expected = roc_auc_score(training_set.labels[held_out], predicted)
    assert curve["AUROC logistic_regression"][2] == pytest.approx(expected)
    assert curve["AUROC logistic_regression"].n_unique() == 3
