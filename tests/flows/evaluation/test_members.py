"""What members are worth, add and cost."""

import polars as pl
import pytest

from flows.evaluation.held_out import HeldOut
from flows.evaluation.members import compare_members, name_member_metrics
from flows.evaluation.metrics import auroc
from flows.evaluation.selection import Decision
from flows.models.assembly import predict_all
from flows.models.families import BASELINE
from flows.models.lightgbm import fit as fit_trees
from flows.models.logistic_regression import fit as fit_linear
from tests.fixtures.drawn_rows import draw_fitting_data
from tests.fixtures.manifests import make_manifest


def test_members_are_compared_by_worth_gain_and_cost():
    data = draw_fitting_data(400)
    members = {BASELINE: fit_linear(data), "lightgbm": fit_trees(data)}
    said = predict_all(members, data.rows)
    found = HeldOut(pl.DataFrame(), data.rows, data.labels, said["lightgbm"], said, [])
    decisions = [Decision("lightgbm", True, 0.05, 0.02, 0.08)]
    table = compare_members(found, members, make_manifest(), decisions)
    measured = name_member_metrics(table)

    assert table["member"].to_list() == [BASELINE, "lightgbm"]
    assert table["weight"].to_list() == [0, 1]
    assert table["gain"].to_list() == [None, 0.05]
    assert f"{BASELINE}_gain" not in measured
    assert measured["lightgbm_gain_low"] == 0.02
    assert measured["lightgbm_auroc"] == auroc(data.labels, said["lightgbm"])
    parts = [measured[f"{name}_milliseconds"] for name in members]
    assert measured["scoring_milliseconds"] == pytest.approx(sum(parts))
    assert min(parts) > 0
