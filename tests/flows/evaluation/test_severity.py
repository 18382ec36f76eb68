"""Calibration by severity and missing pattern, and the baseline without a model."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from feature_repo.catalogue import list_model_inputs
from flows.datasets.rows import ModelRows, Probabilities
from flows.evaluation.held_out import HeldOut
from flows.evaluation.metrics import draw_bootstrap_rows
from flows.evaluation.severity import (
    compare_expected,
    compare_with_phq9_alone,
    find_worst_ratio,
    predict_patterns,
)
from mlruns_config.missing import list_patterns
from tests.fixtures.drawn_rows import draw_rows
from tests.fixtures.manifests import make_manifest

TOTAL = [column.name for column in list_model_inputs()].index("phq9_total")
ROWS = 400


class SaysAFifth:
    """A member that gives every row the same probability."""

    def predict(self, rows: ModelRows) -> Probabilities:
        return np.full(len(rows), 0.2)


@pytest.fixture
def found() -> HeldOut:
    rows = draw_rows(ROWS, 5)
    rows.features[:, TOTAL] = np.arange(ROWS) % 28
    labels = rows.features[:, TOTAL] >= 20
    people = np.array([f"person {n}" for n in range(ROWS)])
    return HeldOut(
        frame=pl.DataFrame(),
        rows=rows,
        labels=labels,
        probabilities=np.full(ROWS, 0.2),
        by_member={},
        rounds=draw_bootstrap_rows(people, 1, 20),
    )


def say_a_fifth(found: HeldOut) -> dict[str, Probabilities]:
    return predict_patterns({"lightgbm": SaysAFifth()}, make_manifest(), found.rows)


def test_a_release_that_understates_the_severely_ill_is_seen(found: HeldOut) -> None:
    table = compare_expected(found, say_a_fifth(found))
    by_severity = dict(
        table.filter(pl.col("by") == "severity")
        .select("group", "observed_over_expected")
        .iter_rows()
    )

    assert by_severity == pytest.approx({"0-9": 0, "10-14": 0, "15-19": 0, "20-27": 5})
    assert find_worst_ratio(table)["worst_severity_observed_over_expected"] == pytest.approx(5)


def test_every_row_is_in_one_severity_group_and_every_pattern_holds_all(found: HeldOut) -> None:
    table = compare_expected(found, say_a_fifth(found))

    assert table.filter(pl.col("by") == "severity")["rows"].sum() == ROWS
    patterns = table.filter(pl.col("by") == "missing pattern")
    assert patterns["rows"].to_list() == [ROWS] * len(list_patterns())


def test_todays_phq9_alone_is_measured_beside_the_release(found: HeldOut) -> None:
    metrics, intervals = compare_with_phq9_alone(found)

    assert metrics["auroc_phq9_alone"] == 1
    assert metrics["auroc_gain_over_phq9"] == pytest.approx(-0.5)
    assert intervals["auroc_gain_over_phq9"] == pytest.approx((-0.5, -0.5))


def test_a_row_without_a_phq9_counts_as_the_mean(found: HeldOut) -> None:
    found.rows.features[:, TOTAL] = np.nan
    metrics, _ = compare_with_phq9_alone(replace(found))

    assert metrics["auroc_phq9_alone"] == 0.5
