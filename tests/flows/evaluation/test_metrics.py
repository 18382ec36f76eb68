"""Metrics against hand-computed values and the reference implementations."""

import numpy as np
import polars as pl
import pytest
from dcurves import dca
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from flows.evaluation.metrics import (
    OneSidedLabelsError,
    auprc,
    auroc,
    bootstrap_difference,
    bootstrap_interval,
    bootstrap_metric,
    compute_metrics,
    draw_bootstrap_rows,
    fit_recalibration,
    measure_decision_curve,
    measure_ece,
    measure_net_benefit,
    measure_top_share,
)


def draw(rows: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return labels that happen exactly as often as their probabilities say."""
    random = np.random.default_rng(seed)
    probabilities = random.beta(1, 6, rows)
    return random.random(rows) < probabilities, probabilities


@pytest.mark.parametrize("outcome", [True, False])
def test_one_outcome_alone_is_refused(outcome):
    with pytest.raises(OneSidedLabelsError, match="all 5 rows"):
        compute_metrics(np.full(5, outcome), np.linspace(0.1, 0.9, 5))


def test_discrimination_is_scikit_learns():
    labels, probabilities = draw(500)
    found = compute_metrics(labels, probabilities)

    assert found["auroc"] == roc_auc_score(labels, probabilities)
    assert found["auprc"] == pytest.approx(average_precision_score(labels, probabilities))
    assert found["brier"] == brier_score_loss(labels, probabilities)
    assert found["prevalence"] == labels.mean()


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0])), min_size=2))
def test_auroc_with_ties_is_scikit_learns(rows):
    labels = np.array([label for label, _ in rows])
    probabilities = np.array([probability for _, probability in rows])
    assume(0 < labels.sum() < len(labels))

    assert auroc(labels, probabilities) == pytest.approx(roc_auc_score(labels, probabilities))


@pytest.mark.parametrize("metric", [auroc, auprc])
def test_a_metric_of_ranks_is_unknown_without_the_outcome_and_refuses_nan(metric):
    assert np.isnan(metric(np.array([False, False]), np.array([0.1, 0.2])))
    with pytest.raises(ValueError, match="nan"):
        metric(np.array([True, False]), np.array([0.1, np.nan]))


def test_auroc_is_the_share_of_pairs_in_the_right_order():
    labels = np.array([True, True, False, False])
    assert auroc(labels, np.array([0.9, 0.4, 0.5, 0.1])) == 3 / 4


def test_honest_probabilities_are_calibrated():
    labels, probabilities = draw(20_000)
    slope, intercept = fit_recalibration(labels, probabilities)

    assert slope == pytest.approx(1, abs=0.05)
    assert intercept == pytest.approx(0, abs=0.1)
    assert measure_ece(labels, probabilities) < 0.01


def test_a_slope_below_one_means_too_extreme():
    labels, probabilities = draw(20_000)
    odds = probabilities / (1 - probabilities)
    slope, _ = fit_recalibration(labels, odds**2 / (1 + odds**2))

    assert slope == pytest.approx(0.5, abs=0.03)


def test_ece_is_the_mean_gap_of_equally_filled_bins():
    probabilities = np.repeat([0.1, 0.4], 50)
    labels = np.arange(100) % 5 == 0  # 20 % in every bin of ten

    assert measure_ece(labels, probabilities) == pytest.approx((0.1 + 0.2) / 2)


def test_the_top_share_counts_who_is_found_and_who_is_right():
    labels = np.array([True, False, True, True, False, False, False, False, False, False])
    probabilities = np.linspace(0.9, 0.1, 10)

    assert measure_top_share(labels, probabilities, 0.2) == (1 / 3, 1 / 2)
    assert measure_top_share(labels, probabilities, 0.01) == (1 / 3, 1)


@pytest.mark.parametrize("threshold", [0.05, 0.1, 0.2, 0.4])
def test_net_benefit_is_that_of_dcurves(threshold):
    labels, probabilities = draw(2000)
    frame = pl.DataFrame({"label": labels.astype(int), "model": probabilities}).to_pandas()
    table = dca(data=frame, outcome="label", modelnames=["model"], thresholds=[threshold])
    expected = table[table["model"] == "model"]["net_benefit"].item()

    assert measure_net_benefit(labels, probabilities, threshold) == pytest.approx(expected)


def test_reviewing_nobody_benefits_nobody():
    labels, probabilities = draw(100)
    assert measure_net_benefit(labels, probabilities * 0.5, 0.99) == 0


def test_a_bootstrap_draws_whole_individuals():
    individuals = np.array(["a", "b", "a", "c", "b", "a"])
    for rows in draw_bootstrap_rows(individuals, seed=2, rounds=50):
        drawn = individuals[rows]
        counts = {name: (drawn == name).sum() for name in "abc"}
        assert [counts["a"] % 3, counts["b"] % 2] == [0, 0]
        assert counts["a"] / 3 + counts["b"] / 2 + counts["c"] == 3


def test_repeated_rows_of_an_individual_do_not_make_us_surer():
    labels, probabilities = draw(150)
    people = np.array([f"p{n}" for n in range(150)])
    repeated = np.repeat(np.arange(150), 8)
    by_person = draw_bootstrap_rows(people[repeated], 3)
    by_row = draw_bootstrap_rows(np.arange(len(repeated)).astype(str), 3)

    def width(rounds):
        low, high = bootstrap_interval(auroc, labels[repeated], probabilities[repeated], rounds)
        return high - low

    assert width(by_person) > 2 * width(by_row)


def test_an_interval_holds_the_value_and_repeats_with_its_seed():
    labels, probabilities = draw(400)
    people = np.array([f"p{n // 2}" for n in range(400)])
    first, again = (
        bootstrap_interval(auroc, labels, probabilities, draw_bootstrap_rows(people, 5))
        for _ in range(2)
    )

    assert first == again
    assert first[0] < auroc(labels, probabilities) < first[1]


@pytest.mark.parametrize(
    ("metric", "of_scikit_learn"), [(auroc, roc_auc_score), (auprc, average_precision_score)]
)
def test_a_metric_of_ranks_is_that_of_scikit_learn_on_every_round(metric, of_scikit_learn):
    labels, probabilities = draw(300)
    probabilities = probabilities.round(1)  # with ties
    rounds = draw_bootstrap_rows(np.repeat(np.arange(100), 3), 1, 40)
    expected = [of_scikit_learn(labels[rows], probabilities[rows]) for rows in rounds]

    assert bootstrap_metric(metric, labels, probabilities, rounds) == pytest.approx(expected)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=60))
def test_the_average_precision_is_that_of_scikit_learn(rows):
    labels = np.array([True] + [label for label, _ in rows])
    probabilities = np.array([0.5] + [probability for _, probability in rows])
    expected = average_precision_score(labels, probabilities)

    assert auprc(labels, probabilities) == pytest.approx(expected)


def test_a_model_gains_nothing_over_itself():
    labels, probabilities = draw(200)
    rounds = draw_bootstrap_rows(np.arange(200).astype(str), 1)
    assert bootstrap_difference(auroc, labels, probabilities, probabilities, rounds) == (0, 0)


def test_rounds_with_one_outcome_are_left_out():
    labels = np.array([True] + [False] * 9)
    rounds = draw_bootstrap_rows(np.arange(10).astype(str), 1)
    low, high = bootstrap_interval(auroc, labels, np.linspace(0.9, 0.1, 10), rounds)
    assert (low, high) == (1, 1)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=2, max_size=60))
def test_every_metric_is_finite_whenever_there_are_both_outcomes(rows):
    labels = np.array([True, False] + [label for label, _ in rows])
    probabilities = np.array([0.5, 0.5] + [probability for _, probability in rows])
    found = compute_metrics(labels, probabilities)

    assert np.isfinite(list(found.values())).all()
    assert 0 <= found["ece"] <= 1


def test_a_decision_curve_has_every_model_and_both_defaults_at_every_threshold():
    labels, probabilities = draw(500)
    table = measure_decision_curve(labels, {"release": probabilities, "rnn": probabilities / 2})
    first = table.filter(pl.col("threshold") == 0.1)

    assert set(first["model"]) == {"release", "rnn", "all", "none"}
    assert table.height == 4 * 60
    benefit = dict(zip(first["model"], first["net_benefit"], strict=True))
    assert benefit["none"] == 0
    assert benefit["release"] == pytest.approx(measure_net_benefit(labels, probabilities, 0.1))
