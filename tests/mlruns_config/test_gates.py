"""Gates fail closed."""

import math
from datetime import date

import pytest
from pydantic import ValidationError

from mlruns_config.gates import (
    COMPARED_WITH,
    Gate,
    drop_stale_comparisons,
    find_failures,
    load_gates,
    select_gates,
)

AUROC = Gate(metric="auroc", minimum=0.65, reason="a test", decided=date(2026, 1, 1))
ECE = Gate(metric="ece", maximum=0.05, reason="a test", decided=date(2026, 1, 1))
RIVAL = Gate(
    metric="auroc_vs_production_low",
    minimum=-0.02,
    reason="a test",
    decided=date(2026, 1, 1),
    versus_production=True,
)


def test_a_missing_metric_fails():
    assert find_failures((AUROC, ECE), {}) == ["auroc is missing", "ece is missing"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_fails(value):
    assert AUROC.find_failure({"auroc": value}) is not None
    assert ECE.find_failure({"ece": value}) is not None


@pytest.mark.parametrize(("auroc", "ece"), [(0.6499, 0.0), (0.9, 0.0501)])
def test_a_value_beyond_its_bound_fails_with_both_numbers(auroc, ece):
    (failure,) = find_failures((AUROC, ECE), {"auroc": auroc, "ece": ece})

    assert "is needed" in failure or "is allowed" in failure
    assert "0.6" in failure or "0.05" in failure


def test_bounds_are_inclusive():
    assert find_failures((AUROC, ECE), {"auroc": 0.65, "ece": 0.05}) == []


@pytest.mark.parametrize("text", ["", "other = 1"])
def test_a_file_without_gates_is_refused(tmp_path, text):
    path = tmp_path / "gates.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match="names no gate"):
        load_gates(path)


def test_a_gate_without_bounds_or_reason_is_refused(tmp_path):
    path = tmp_path / "gates.toml"
    path.write_text('[[gate]]\nmetric = "auroc"\nreason = "x"\ndecided = 2026-01-01\n')
    with pytest.raises(ValidationError, match="neither minimum nor maximum"):
        load_gates(path)
    path.write_text('[[gate]]\nmetric = "auroc"\nminimum = 0.5\ndecided = 2026-01-01\n')
    with pytest.raises(ValidationError, match="reason"):
        load_gates(path)


def test_a_misspelt_bound_is_refused(tmp_path):
    path = tmp_path / "gates.toml"
    path.write_text('[[gate]]\nmetric = "a"\nminimun = 1\nreason = "x"\ndecided = 2026-01-01\n')
    with pytest.raises(ValidationError, match="minimun"):
        load_gates(path)


@pytest.mark.parametrize(
    ("production", "asked"), [(None, (AUROC,)), (4, (AUROC,)), (3, (AUROC, RIVAL))]
)
def test_production_is_the_rival_only_where_another_release_is_there(production, asked):
    assert select_gates((AUROC, RIVAL), version=4, production=production) == asked


@pytest.mark.parametrize("compared_with", [None, 2])
def test_a_comparison_with_another_release_than_production_fails_as_missing(compared_with):
    metrics = {"auroc": 0.8, RIVAL.metric: 0.1}
    if compared_with is not None:
        metrics[COMPARED_WITH] = float(compared_with)
    left = drop_stale_comparisons((AUROC, RIVAL), metrics, production=3)

    (failure,) = find_failures((AUROC, RIVAL), left)
    assert failure.startswith("auroc_vs_production_low is missing: compare it")
    fresh = drop_stale_comparisons((AUROC, RIVAL), metrics | {COMPARED_WITH: 3.0}, production=3)
    assert find_failures((AUROC, RIVAL), fresh) == []


def test_the_reviewed_file_asks_a_challenger_not_to_be_worse_than_production():
    rivals = {gate.metric for gate in load_gates() if gate.versus_production}
    best = "auroc_vs_best_low"
    assert rivals == {"auroc_vs_production_low", "brier_vs_production_high", best}


def test_the_reviewed_file_judges_discrimination_calibration_benefit_fairness_and_speed():
    judged = {gate.metric for gate in load_gates()}
    assert judged >= {
        *("auroc_low", "auroc_gain_low", "auroc_gain_over_phq9_low", "auprc", "ece"),
        *("calibration_slope_low", "calibration_slope_high", "severity_ratio_miss"),
        *("net_benefit_gain_low", "worst_group_auroc_high", "worst_group_recall_high"),
        *("pattern_ratio_miss", "interval_coverage_miss", "scoring_milliseconds"),
    }
