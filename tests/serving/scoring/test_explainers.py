import json

import numpy as np
import pytest
from pydantic import ValidationError

from serving.scoring.estimate import to_log_odds
from serving.scoring.explainers import (
    ExplainerError,
    LinearExplainer,
    LinearTerms,
    TreeExplainer,
    load_linear_explainer,
)
from tests.fixtures.releases import WIDTH, draw_training_data, train_members


@pytest.fixture(scope="module")
def members():
    return train_members()


@pytest.fixture(scope="module")
def rows():
    return draw_training_data()[0][:100]


def test_tree_contributions_equal_those_of_the_lightgbm_package(members, rows):
    explainer = TreeExplainer(members.booster.model_to_string(), WIDTH)

    for row in rows:
        expected = members.booster.predict(row[np.newaxis], pred_contrib=True)[0]
        found = explainer.explain(row[np.newaxis])
        np.testing.assert_allclose([*found.contributions, found.baseline], expected, atol=1e-12)


def test_tree_contributions_add_up_to_the_log_odds(members, rows):
    explainer = TreeExplainer(members.booster.model_to_string(), WIDTH)

    for row in rows:
        probability = members.booster.predict(row[np.newaxis])[0]
        log_odds = explainer.explain(row[np.newaxis]).log_odds
        assert log_odds == pytest.approx(to_log_odds(probability), abs=1e-9)


def test_trees_of_another_width_are_refused(members):
    with pytest.raises(ExplainerError, match="the trees take 7 features, the release 5"):
        TreeExplainer(members.booster.model_to_string(), 5)


def test_a_file_that_is_no_lightgbm_model_is_refused():
    with pytest.raises(ExplainerError, match="LightGBM"):
        TreeExplainer("tree\nnot a model", WIDTH)


def test_linear_contributions_are_the_closed_form():
    terms = LinearTerms(
        fill=[1, 5],
        mean=[1, 3],
        scale=[2, 1],
        coefficients=[0.5, -1],
        missing_coefficients=[0.1, 0.25],
        intercept=-2,
    )
    found = LinearExplainer(terms).explain(np.array([[5, np.nan]], dtype=np.float32))

    # 0.5 * (5 - 1) / 2; and, missing: -1 * (5 - 3) / 1 + 0.25.
    assert found.contributions.tolist() == [1.0, -1.75]
    assert found.baseline == -2


@pytest.mark.parametrize(
    "change", [{"scale": [0.0] * WIDTH}, {"fill": [1.0]}, {"intercept": "x"}, {"extra": 1}]
)
def test_unusable_linear_terms_are_refused(members, tmp_path, change):
    path = tmp_path / "linear.json"
    path.write_text(json.dumps(members.linear_terms | change))

    with pytest.raises(ValidationError):
        load_linear_explainer(path)
