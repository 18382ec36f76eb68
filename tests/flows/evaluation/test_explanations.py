"""SHAP in the training report says what serving says of the same rows."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import shap
from matplotlib.backends.backend_agg import FigureCanvasAgg

from feature_repo.catalogue import list_model_inputs
from flows.datasets.rows import ModelRows
from flows.evaluation import explanations
from flows.evaluation.explanations import draw_bar, draw_beeswarm, explain_trees
from flows.models.lightgbm import BoostedTrees, fit
from flows.models.stacking import to_log_odds
from serving.scoring.explainers import TreeExplainer
from tests.fixtures.drawn_rows import NAMES, draw_fitting_data, draw_rows

WORDS = [column.label for column in list_model_inputs()]


@pytest.fixture(scope="module")
def trees() -> BoostedTrees:
    return fit(draw_fitting_data(800))


@pytest.fixture(scope="module")
def rows() -> ModelRows:
    drawn = draw_rows(120, 11)
    drawn.features[0] = np.nan
    return drawn


@pytest.fixture(scope="module")
def explanation(trees, rows) -> shap.Explanation:
    return explain_trees(trees, rows.features, WORDS, seed=1)


def test_shap_says_what_lightgbm_says(trees, explanation):
    contributions = trees.booster.predict(explanation.data, pred_contrib=True)

    assert explanation.values.shape == (120, len(NAMES))
    assert np.abs(explanation.values).max() > 0.1
    np.testing.assert_allclose(explanation.values, contributions[:, :-1], atol=1e-9)
    np.testing.assert_allclose(explanation.base_values, contributions[:, -1], atol=1e-9)


def test_shap_says_what_serving_tells_a_clinician(trees, explanation):
    served = TreeExplainer(trees.export_files()["model.txt"].decode(), len(NAMES))
    told = [served.explain(row[None, :]) for row in explanation.data]

    np.testing.assert_allclose(
        explanation.values, np.stack([one.contributions for one in told]), atol=1e-9
    )
    np.testing.assert_allclose(explanation.base_values, [one.baseline for one in told], atol=1e-9)


def test_contributions_add_up_to_the_estimate(trees, explanation):
    added = explanation.base_values + explanation.values.sum(axis=1)
    predicted = trees.booster.predict(explanation.data)

    np.testing.assert_allclose(added, to_log_odds(predicted), atol=1e-6)


def test_the_features_that_drive_the_drawn_outcome_contribute_most(explanation):
    sizes = np.abs(explanation.values).mean(axis=0)
    assert NAMES[int(sizes.argmax())] == "phq9_total"


def test_each_row_is_explained_once(rows, explanation):
    asked, explained = (
        sorted(np.nan_to_num(part, nan=-1).tolist()) for part in (rows.features, explanation.data)
    )
    assert explained == asked


def test_of_many_rows_a_sample_is_explained_the_same_for_one_seed(trees, rows, monkeypatch):
    monkeypatch.setattr(explanations, "EXPLAINED_ROWS", 30)
    one, again, other = (
        explain_trees(trees, rows.features, WORDS, seed).data for seed in (1, 1, 2)
    )

    assert len(one) == 30
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other, equal_nan=True)


@pytest.mark.parametrize("draw", [draw_beeswarm, draw_bar])
def test_a_picture_is_in_plain_words_and_leaves_no_figure_open(explanation, draw):
    before = plt.get_fignums()
    figure = draw(explanation)
    shown = {label.get_text() for axes in figure.axes for label in axes.get_yticklabels()}

    assert plt.get_fignums() == before
    assert WORDS[NAMES.index("phq9_total")] in {text.removesuffix(" ") for text in shown}
    assert figure.get_suptitle()


@pytest.mark.parametrize("draw", [draw_beeswarm, draw_bar])
def test_the_longest_labels_lie_inside_the_picture(draw):
    longest = sorted(WORDS, key=len)
    values = np.random.default_rng(1).normal(size=(60, len(WORDS))) * np.arange(1, len(WORDS) + 1)
    figure = draw(
        shap.Explanation(
            values=values, base_values=np.zeros(60), data=values, feature_names=longest
        )
    )
    drawn = figure.get_tightbbox(FigureCanvasAgg(figure).get_renderer())
    width, height = figure.get_size_inches()

    assert longest[-1] in {label.get_text() for label in figure.axes[0].get_yticklabels()}
    assert drawn.x0 >= 0
    assert drawn.y0 >= 0
    assert drawn.x1 <= width
    assert drawn.y1 <= height


def test_a_picture_that_cannot_be_drawn_leaves_no_figure_open(explanation):
    before = plt.get_fignums()
    broken = shap.Explanation(values=np.float64(0), feature_names=[])
    for draw in (draw_beeswarm, draw_bar):
        with pytest.raises(Exception):  # noqa: B017, PT011 # whatever shap says
            draw(broken)
    assert plt.get_fignums() == before
