import numpy as np
import pytest

from serving.releases.loading import load_release
from serving.releases.registry import Registry
from serving.scoring.assessment import explain_release, predict_members
from serving.scoring.estimate import Inputs, stack_log_odds
from serving.scoring.explainers import Attribution
from serving.scoring.reasons import combine_attributions, describe_reason, explain
from tests.fixtures.releases import FEATURES, WIDTH, draw_training_data


@pytest.fixture(scope="module")
def release(mlflow_url, releases):
    registry = Registry(mlflow_url)
    release = load_release(registry, releases.publish(promote=False))
    registry.close()
    return release


def test_contributions_add_up_to_the_releases_log_odds(release):
    stacker = release.manifest.stacker
    for row in draw_training_data()[0][:100]:
        vector = row[np.newaxis]
        parts = {name: member.explainer.explain(vector) for name, member in release.members.items()}
        combined = combine_attributions(stacker, parts, WIDTH)
        said = predict_members(release, Inputs(vector), release.members)
        outputs = {name: np.array([probability]) for name, probability in said.items()}
        (stacked,) = stack_log_odds(stacker, outputs)
        assert combined.log_odds == pytest.approx(stacked, abs=1e-4)


def test_reasons_are_sorted_by_strength_and_at_most_five_a_direction(release):
    for row in draw_training_data()[0][:100]:
        reasons = explain_release(release, row[np.newaxis])
        effects = [abs(reason.effect) for reason in reasons]
        directions = [reason.direction for reason in reasons]
        assert effects == sorted(effects, reverse=True)
        assert max(directions.count("raises"), directions.count("lowers")) <= 5
        assert all((reason.effect > 0) == (reason.direction == "raises") for reason in reasons)


def test_the_weaker_direction_is_told_even_beside_many_strong_reasons():
    effects = np.array([3.0, 2.5, 2.0, 1.5, 1.2, 1.1, -0.1])
    reasons = explain(FEATURES, np.ones((1, WIDTH), np.float32), Attribution(0.0, effects))

    assert [reason.effect for reason in reasons] == [3.0, 2.5, 2.0, 1.5, 1.2, -0.1]


@pytest.mark.parametrize(
    ("value", "effect", "text"),
    [
        (18, 0.8, "PHQ-9 total: 18 points (usually 1 to 17); raises the priority, large effect"),
        (2, -0.3, "PHQ-9 total: 2 points (usually 1 to 17); lowers the priority, moderate effect"),
        (np.nan, 0.1, "PHQ-9 total: no data; raises the priority, small effect"),
    ],
)
def test_a_reason_says_value_usual_range_direction_and_size(value, effect, text):
    assert describe_reason(FEATURES[0], value, effect).text == text


def test_a_feature_without_usual_range_is_told_by_its_value():
    feature = FEATURES[0].model_copy(update={"usual_low": None, "unit": ""})

    assert describe_reason(feature, 3.0, 0.1).text.startswith("PHQ-9 total: 3;")
