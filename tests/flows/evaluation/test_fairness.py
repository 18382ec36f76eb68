"""Metrics by subgroup, and who is too few to be judged."""

import numpy as np
import polars as pl
import pytest

from flows.evaluation.fairness import (
    FEWEST_OUTCOMES,
    SMALLEST_GROUP,
    compare_groups,
    describe_groups,
    find_worst,
    name_age_band,
)


def make_group(rows: int, outcomes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and probabilities; every second outcome is ranked on top."""
    labels = np.arange(rows) < outcomes
    probabilities = np.where(labels & (np.arange(rows) % 2 == 0), 0.9, 0.1)
    return labels, probabilities


def compare(rows: int, outcomes: int) -> pl.DataFrame:
    labels, probabilities = make_group(rows, outcomes)
    groups = pl.DataFrame({"sex": ["female"] * rows})
    return compare_groups(groups, labels, probabilities, 0.5)


@pytest.mark.parametrize(
    ("rows", "outcomes"), [(SMALLEST_GROUP - 1, 50), (500, FEWEST_OUTCOMES - 1)]
)
def test_a_small_group_is_not_shown(rows, outcomes):
    assert compare(rows, outcomes).is_empty()


def test_nothing_to_judge_is_nothing_that_could_pass():
    assert find_worst(compare(10, 5)) == {}


def test_a_group_is_shown_from_the_smallest_size_on():
    (row,) = compare(SMALLEST_GROUP, FEWEST_OUTCOMES).to_dicts()

    assert row["group"] == "female"
    assert row["recall"] == 0.5
    assert row["prevalence"] == pytest.approx(FEWEST_OUTCOMES / SMALLEST_GROUP)
    assert row["auroc"] == pytest.approx(0.75)


def test_the_worst_group_and_the_widest_gap_are_named():
    table = pl.DataFrame(
        {
            "attribute": ["sex", "sex", "age_band", "age_band"],
            "group": ["female", "male", "under 30", "60 and over"],
            "auroc": [0.8, 0.7, 0.9, 0.65],
            "recall": [0.5, 0.4, 0.6, 0.3],
        }
    )

    assert find_worst(table) == pytest.approx({"worst_group_auroc": 0.65, "recall_gap": 0.3})


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
    held_out = pl.DataFrame({"anonymized_id": ["a", "b"], "age": [20.0, 50.0]})
    people = pl.DataFrame({"anonymized_id": ["a"], "sex": ["female"], "ethnicity": [None]})
    groups = describe_groups(held_out, people.cast({"ethnicity": pl.String}))

    assert groups["sex"].to_list() == ["female", "unknown"]
    assert groups["ethnicity"].to_list() == ["unknown", "unknown"]
