"""What a reviewer reads of a release."""

import numpy as np
import polars as pl
import pytest

from flows.evaluation.held_out import HeldOut, compare_net_benefit
from flows.evaluation.plots import draw_all
from flows.evaluation.report import Evaluation
from flows.models.member import ModelRows
from mlruns_config.release import ScoreMap
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
    assert len(figures) >= 5


def test_a_table_shows_values_with_their_intervals():
    evaluation = Evaluation({"auroc": 0.75, "ece": 0.02}, {"auroc": (0.7, 0.8)}, pl.DataFrame(), {})
    text = evaluation.to_markdown()

    assert "| auroc | 0.750 | 0.700 to 0.800 |" in text
    assert "| ece | 0.020 |  |" in text
