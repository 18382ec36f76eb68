"""Coverage of intervals by severity."""

import numpy as np
import polars as pl

from feature_repo.catalogue import list_model_inputs
from flows.datasets.rows import ModelRows
from flows.evaluation.certainty import compare_coverage, summarise_coverage
from flows.evaluation.held_out import HeldOut
from serving.scoring.uncertainty import Bounds

ROWS = 400
INPUTS = [column.name for column in list_model_inputs()]


def hold_out(totals: np.ndarray) -> HeldOut:
    features = np.full((ROWS, len(INPUTS)), np.nan, np.float32)
    features[:, INPUTS.index("phq9_total")] = totals
    rows = ModelRows(features, np.zeros((ROWS, 1, 1), np.float32))
    labels = np.arange(ROWS) % 4 == 0
    return HeldOut(pl.DataFrame(), rows, labels, np.full(ROWS, 0.25), {}, [])


def bound(width: float) -> Bounds:
    return Bounds(*(np.full(ROWS, value) for value in (0.25 - width, 0.25 + width, 0.3, width)))


def test_without_a_phq9_only_the_coverage_of_all_is_returned():
    found = hold_out(np.full(ROWS, np.nan))
    table = compare_coverage(found, bound(0.1), np.zeros((1, ROWS)))

    assert table["severity"].to_list() == ["all"]
    assert np.isfinite(summarise_coverage(table)["interval_coverage_miss"])


def test_a_severity_group_that_strays_is_the_worst():
    totals = np.where(np.arange(ROWS) < 200, 4, 22)
    straying = np.where(totals == 22, 3.0, 0.0)[None]
    table = compare_coverage(hold_out(totals), bound(0.1), straying)

    assert dict(table.select("severity", "coverage").iter_rows()) == {
        "all": 0.5,
        "0-9": 1.0,
        "20-27": 0.0,
    }
    assert summarise_coverage(table)["interval_coverage_miss"] > 0.8
