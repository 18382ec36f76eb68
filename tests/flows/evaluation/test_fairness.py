"""Metrics by subgroup, and who is too few to be judged."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from feature_repo.catalogue import list_model_inputs
from flows.datasets.rows import ModelRows
from flows.evaluation.fairness import (
    MIN_GROUP,
    MIN_OUTCOMES,
    MISSING,
    compare_groups,
    describe_groups,
    find_worst,
    name_age_band,
)
from flows.evaluation.held_out import HeldOut
from flows.evaluation.metrics import draw_bootstrap_rows
from flows.models.data_types import find_columns


def make_group(rows: int, outcomes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and probabilities; every second outcome is ranked on top."""
    labels = np.arange(rows) < outcomes
    probabilities = np.where(labels & (np.arange(rows) % 2 == 0), 0.9, 0.1)
    return labels, probabilities


def hold_out(labels: np.ndarray, probabilities: np.ndarray) -> HeldOut:
    count = len(labels)
    people = np.array([f"person {n}" for n in range(count)])
    rows = ModelRows(
        np.zeros((count, len(list_model_inputs())), np.float32), np.zeros((count, 1, 1))
    )
    rounds = draw_bootstrap_rows(people, 1, 20)
    return HeldOut(pl.DataFrame(), rows, labels, probabilities, {}, rounds)


def compare(rows: int, outcomes: int) -> pl.DataFrame:
    labels, probabilities = make_group(rows, outcomes)
    groups = pl.DataFrame({"sex": ["female"] * rows})
    return compare_groups(groups, hold_out(labels, probabilities), 0.5)


@pytest.mark.parametrize(("rows", "outcomes"), [(MIN_GROUP - 1, 50), (500, MIN_OUTCOMES - 1)])
def test_a_small_group_is_not_shown(rows, outcomes):
    assert compare(rows, outcomes).is_empty()


def test_nothing_to_judge_is_nothing_that_could_pass():
    assert find_worst(compare(10, 5)) == {}


def test_a_group_is_shown_from_the_smallest_size_on():
    (row,) = compare(MIN_GROUP, MIN_OUTCOMES).to_dicts()

    assert row["group"] == "female"
    assert row["recall"] == 0.5
    assert row["prevalence"] == pytest.approx(MIN_OUTCOMES / MIN_GROUP)
    assert row["auroc"] == pytest.approx(0.75)


def test_a_group_has_its_own_numbers_whoever_stands_beside_it():
    labels, probabilities = make_group(300, 60)
    others, wrong = labels[::-1], np.where(labels, 0.2, 0.8)
    groups = pl.DataFrame({"sex": ["female"] * 300 + ["male"] * 300})
    found = hold_out(np.r_[labels, others], np.r_[probabilities, wrong])
    table = compare_groups(groups, found, 0.5)
    alone = compare_groups(groups[:300], hold_out(labels, probabilities), 0.5)
    numbers = ["rows", "prevalence", "auroc", "recall", "ppv", "flagged"]

    assert table["group"].to_list() == ["female", "male"]
    assert table.select(numbers).row(0) == pytest.approx(alone.select(numbers).row(0))
    assert (table["ppv"][0], table["flagged"][0]) == (1, 0.1)
    for row in table.iter_rows(named=True):
        assert row["auroc_low"] <= row["auroc"] <= row["auroc_high"]


def test_pairs_are_judged_where_they_are_large_enough():
    labels, probabilities = make_group(900, 450)
    labels = labels[np.random.default_rng(1).permutation(900)]
    groups = pl.DataFrame(
        {
            "sex": ["female"] * 450 + ["male"] * 450,
            "age_band": (["under 30"] * 350 + ["30-44"] * 100) * 2,
        }
    )
    table = compare_groups(groups, hold_out(labels, probabilities), 0.5)
    pairs = table.filter(pl.col("attribute") == "sex x age_band")

    assert pairs["group"].to_list() == ["female, under 30", "male, under 30"]
    assert set(table["attribute"]) == {"sex", "age_band", "sex x age_band"}


def test_the_worst_group_and_the_widest_gap_are_named():
    table = pl.DataFrame(
        {
            "attribute": ["sex", "sex", "age_band", "age_band", "sex x age_band", MISSING],
            "group": ["female", "male", "under 30", "60 and over", "female, 30-44", "emr"],
            "rows": [2000, 1900, 900, 799, 300, 900],
            "auroc": [0.8, 0.7, 0.9, 0.65, 0.6, 0.5],
            "recall": [0.5, 0.4, 0.6, 0.3, 0.2, 0.0],
        }
    )

    assert find_worst(table) == pytest.approx(
        {
            "worst_group_auroc": 0.65,
            "recall_gap": 0.3,
            "worst_group_auroc_pairs": 0.6,
            "recall_gap_pairs": 0,
        }
    )


@pytest.mark.parametrize(
    ("age", "band"),
    [
        (None, "unknown"),
        (float("nan"), "unknown"),
        (29.9, "under 30"),
        (30, "30-44"),
        (44.9, "30-44"),
        (45, "45-59"),
        (59.9, "45-59"),
        (60, "60 and over"),
    ],
)
def test_ages_fall_into_bands(age, band):
    frame = pl.DataFrame({"age": [age]}, schema={"age": pl.Float64})
    assert frame.select(name_age_band(pl.col("age"))).item() == band


def test_who_states_nothing_is_a_group_of_its_own():
    found = hold_out(np.array([True, False]), np.array([0.2, 0.1]))
    found.rows.features[1, find_columns("wearable")] = np.nan
    held_out = pl.DataFrame({"anonymized_id": ["a", "b"], "age": [20.0, 50.0]})
    people = pl.DataFrame({"anonymized_id": ["a"], "sex": ["female"], "ethnicity": [None]})
    groups = describe_groups(replace(found, frame=held_out), people.cast({"ethnicity": pl.String}))

    assert groups["sex"].to_list() == ["female", "unknown"]
    assert groups["ethnicity"].to_list() == ["unknown", "unknown"]
    assert groups[MISSING].to_list() == ["none", "wearable"]
