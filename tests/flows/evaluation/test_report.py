"""What a reviewer reads of a release."""

from datetime import date

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import pytest

from flows.datasets.rows import ModelRows
from flows.datasets.training_set import Split, TrainingSet
from flows.evaluation.card import describe_table, gather_facts
from flows.evaluation.held_out import HeldOut, compare_net_benefit
from flows.evaluation.learning import LearntHead
from flows.evaluation.plots import (
    RELEASE,
    draw_all,
    draw_calibration,
    draw_score_distribution,
)
from flows.evaluation.releasing import LearntRelease
from flows.evaluation.report import (
    Evaluation,
    draw_figures,
    evaluate_release,
)
from flows.models.lightgbm import fit as fit_trees
from flows.models.logistic_regression import fit as fit_linear
from mlruns_config.heads import ScoreMap
from tests.fixtures.drawn_rows import draw_fitting_data
from tests.fixtures.manifests import make_manifest


def draw(rows: int = 400) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    probabilities = random.beta(1, 4, rows)
    return random.random(rows) < probabilities, probabilities


def hold_out(labels: np.ndarray, probabilities: np.ndarray) -> HeldOut:
    rows = ModelRows(np.zeros((len(labels), 1), np.float32), np.zeros((len(labels), 1, 1)))
    return HeldOut(pl.DataFrame(), rows, labels, probabilities, {}, [])


def make_scored_manifest(review_from: float):
    edges = [0, review_from / 3, review_from / 2, review_from, 1]
    score_map = ScoreMap(probabilities=edges, scores=[0, 25, 50, 75, 100], operating_points={})
    return make_manifest(score_map=score_map)


def test_reviewing_everyone_sets_the_bar_where_it_is_worth_something():
    labels = np.array([True] * 6 + [False] * 4)
    found = compare_net_benefit(
        hold_out(labels, np.where(labels, 0.9, 0.1)), make_scored_manifest(0.2)
    )

    assert found["net_benefit"] == pytest.approx(0.6)
    assert found["net_benefit_gain"] == pytest.approx(0.6 - (0.6 - 0.4 * 0.25))


def test_reviewing_nobody_sets_the_bar_where_everyone_would_be_harmful():
    labels = np.array([True] + [False] * 9)
    found = compare_net_benefit(hold_out(labels, np.full(10, 0.1)), make_scored_manifest(0.5))
    assert found == {"net_benefit": 0, "net_benefit_gain": 0}


def test_every_plot_is_drawn_with_axes_and_a_legend():
    labels, probabilities = draw()
    figures = draw_all(labels, probabilities, {"lightgbm": probabilities}, make_manifest())

    for name, figure in figures.items():
        (axes,) = figure.axes
        assert axes.get_xlabel(), name
        assert axes.get_ylabel(), name
        assert axes.get_legend() is not None, name
    assert len(figures) == 4


def test_a_table_shows_values_with_their_intervals():
    evaluation = Evaluation({"auroc": 0.75, "ece": 0.02}, {"auroc": (0.7, 0.8)}, {}, {})
    text = evaluation.to_markdown()

    assert "| auroc | 0.750 | 0.700 to 0.800 |" in text
    assert "| ece | 0.020 |  |" in text


def test_a_plot_draws_every_member_beside_the_release_by_name():
    labels, probabilities = draw()
    names = {"logistic_regression", "lightgbm", "rnn"}
    figures = draw_all(labels, probabilities, dict.fromkeys(names, probabilities), make_manifest())

    for plot in ("roc", "precision_recall"):
        legend = figures[plot].axes[0].get_legend()
        told = {text.get_text().split(" ")[0] for text in legend.get_texts()}
        assert {RELEASE, *names} <= told, plot


def test_no_figure_of_a_report_stays_open():
    labels, probabilities = draw()
    before = plt.get_fignums()
    draw_all(labels, probabilities, {}, make_manifest())
    assert plt.get_fignums() == before


def test_fewer_rows_than_tenths_are_drawn_one_by_one():
    figure = draw_calibration(np.array([False, True, False]), np.array([0.3, 0.9, 0.1]))
    line = figure.axes[0].get_lines()[0]

    assert list(line.get_xdata()) == [0.1, 0.3, 0.9]
    assert list(line.get_ydata()) == [0, 0, 1]


def test_bars_of_a_score_distribution_add_up_to_one_for_each_outcome():
    labels, probabilities = draw()
    (axes,) = draw_score_distribution(labels, probabilities, make_manifest()).axes
    heights = [sum(bar.get_height() for bar in bars) for bars in axes.containers]

    assert heights == pytest.approx([1, 1])


def make_report_set(rows: int = 300) -> TrainingSet:
    """Return a training set held out as a whole, two rows of each individual."""
    people = [f"person {n // 2}" for n in range(rows)]
    data = draw_fitting_data(rows)
    frame = pl.DataFrame(
        {
            "anonymized_id": people,
            "index_date": [date(2025, 1, 1)] * rows,
            "adverse_course": data.labels,
            "worsening": data.labels,
            "age": [40.0] * rows,
        }
    )
    nobody = np.zeros(rows, bool)
    return TrainingSet(frame, data.rows, data.futures, Split(nobody, nobody, nobody, ~nobody))


def test_a_release_with_trees_is_reported_with_its_gain_its_groups_and_shap():
    training_set = make_report_set()
    people = training_set.frame.select("anonymized_id").unique()
    stated = people.with_columns(sex=pl.lit("female"), ethnicity=pl.lit(None, pl.String))
    data = draw_fitting_data(800)
    members = {"logistic_regression": fit_linear(data), "lightgbm": fit_trees(data)}
    manifest = make_scored_manifest(0.6)
    head = LearntHead(manifest.priority, members, {}, [], [], np.zeros(0), None)
    learnt = LearntRelease(manifest, head, None, None)
    evaluation = evaluate_release(training_set, stated, learnt, seed=1)
    metrics = evaluation.metrics

    drawn = {"roc", "calibration", "decision_curve", "subgroups", "shap_beeswarm", "shap_bar"}
    assert set(evaluation.figures) > drawn
    assert metrics["held_out_rows"] == metrics["rows"] == 300
    assert metrics["auroc"] == pytest.approx(metrics["lightgbm_auroc"])  # its only weight
    gain = metrics["lightgbm_auroc"] - metrics["logistic_regression_auroc"]
    assert metrics["auroc_gain"] == pytest.approx(gain)
    assert metrics["auroc_gain_low"] == evaluation.intervals["auroc_gain"][0]
    low, high = evaluation.intervals["observed_over_expected"]
    assert low <= metrics["observed_over_expected"] <= high
    facts = gather_facts(manifest, evaluation, training_set)
    assert facts.holds("observed_over_expected", 1.0) is (low <= 1 <= high)
    assert facts.metrics["auroc_high"] == evaluation.intervals["auroc"][1]
    assert facts.held_out == (300, training_set.labels.sum())
    assert metrics["auroc_without_survey"] < metrics["auroc"]
    assert metrics["auroc_without_emr"] > metrics["auroc_without_survey"]
    assert "female" in evaluation.tables["fairness"]["group"].to_list()
    assert np.isfinite(list(metrics.values())).all()
    written = evaluation.to_markdown() + describe_table(evaluation.tables["fairness"], "none")
    assert "person" not in written


def test_a_release_without_trees_has_no_shap_pictures():
    labels, probabilities = draw(40)
    figures = draw_figures(hold_out(labels, probabilities), {}, make_manifest(), 1)
    assert not [name for name in figures if name.startswith(("shap", "tft"))]


def test_groups_too_small_to_judge_are_said_to_be():
    assert describe_table(pl.DataFrame(), "nothing") == "nothing"


def test_a_groups_table_has_a_row_for_each_group():
    table = describe_table(
        pl.DataFrame({"group": ["female"], "rows": [120], "auroc": [0.7]}), "nothing"
    )
    assert table.splitlines() == [
        "| group | rows | auroc |",
        "|---|---|---|",
        "| female | 120 | 0.700 |",
    ]
