"""Ways to a lower estimate: only what a person can change, within what training saw."""

import numpy as np
import pytest

from mlruns_config.missing import NOTHING
from serving.releases.loading import load_release
from serving.releases.registry import Registry
from serving.scoring.assessment import predict_members, predict_refits
from serving.scoring.counterfactuals import MIN_GAIN, find_counterfactuals, try_settings
from serving.scoring.doubts import Outputs, estimate
from serving.scoring.estimate import Inputs, assemble_vector
from tests.fixtures.releases import FEATURES, SLEEP, STEPS

SLEEPLESS = {
    "phq9_total": 14,
    "phq9_item_9": 0,
    "gad7_total": 10,
    "steps_mean_28": 6000,
    "sleep_minutes_mean_28": 330,
    "emergency_visits_365": 1,
    "age": 40,
}


@pytest.fixture(scope="module")
def release(mlflow_url, releases):
    registry = Registry(mlflow_url)
    version = releases.publish(promote=False, levers=[STEPS, SLEEP])
    yield load_release(registry, version)
    registry.close()


def assess(release, **changes):
    inputs = Inputs(assemble_vector(FEATURES, SLEEPLESS | changes))
    outputs = Outputs(predict_members(release, inputs, {}), predict_refits(release, inputs))
    said = estimate(release.manifest, outputs, [])
    return inputs, said, find_counterfactuals(release, inputs, said)


def test_a_score_in_the_lowest_band_needs_no_way_down(release):
    _, said, found = assess(release, phq9_total=1, gad7_total=1, sleep_minutes_mean_28=480)

    assert said.score <= 25
    assert found == []


def test_a_habit_that_is_not_known_is_not_moved(release):
    _, _, found = assess(release, sleep_minutes_mean_28=None, steps_mean_28=None)

    assert found == []


def test_a_release_without_levers_offers_nothing(releases, mlflow_url):
    registry = Registry(mlflow_url)
    plain = load_release(registry, releases.publish(promote=False))
    registry.close()

    assert assess(plain)[2] == []


def test_a_way_down_is_what_the_release_itself_would_say(release):
    inputs, said, found = assess(release)

    assert found
    for way in found:
        changed = {"daily steps": "steps_mean_28", "sleep a night": "sleep_minutes_mean_28"}
        values = SLEEPLESS | {changed[one.label]: one.value for one in way.changes}
        again = Inputs(assemble_vector(FEATURES, values))
        outputs = Outputs(predict_members(release, again, {}), predict_refits(release, again))
        assert estimate(release.manifest, outputs, []).probability == pytest.approx(
            way.probability, abs=2e-3
        )
        assert way.probability <= said.probability - MIN_GAIN
        assert f"{way.probability:.0%}" in way.text
    assert inputs.vector[0, 4] == 330  # what was given is left as it was


def test_only_levers_move_and_only_within_their_bounds(release):
    _, _, found = assess(release)

    for way in found:
        for change in way.changes:
            low, high = (2500, 11000) if change.label == "daily steps" else (330, 480)
            assert low <= change.value <= high
            assert change.instead_of in (6000, 330)


def test_the_smallest_change_comes_first_and_a_second_must_gain_more(release):
    _, _, found = assess(release)

    assert [len(way.changes) for way in found] == list(range(1, len(found) + 1))
    probabilities = [way.probability for way in found]
    assert probabilities == sorted(probabilities, reverse=True)


def test_settings_are_scored_together_as_they_are_alone(release):
    inputs, _, _ = assess(release)
    levers = {"steps": STEPS, "sleep": SLEEP}
    settings = [{"steps": 4000.0}, {"sleep": 450.0}, {"steps": 9000.0, "sleep": 400.0}]

    together = try_settings(release, inputs, levers, settings, NOTHING)
    alone = [try_settings(release, inputs, levers, [one], NOTHING)[0] for one in settings]
    np.testing.assert_allclose(together, alone, atol=1e-6)
