"""The rules are the tree, read as serving reads them; the levers are what a person can change."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.catalogue import list_model_inputs
from flows.models.levers import describe_levers
from flows.models.surrogate import MAX_RULES, describe_surrogate, fit_surrogate
from mlruns_config.manifest import FeatureDescription, ReleaseManifest
from serving.scoring.rules import match_rule
from tests.fixtures.manifests import make_manifest

NAMES = ("a", "b", "c", "d")


def draw(rows, seed):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rows, len(NAMES))).astype(np.float32)
    features[rng.random(features.shape) < 0.2] = np.nan
    known = np.nan_to_num(features)
    return features, 1 / (1 + np.exp(-known[:, 0] - (known[:, 1] > 0.5)))


def describe(name, low=None, high=None):
    return FeatureDescription(
        name=name, label=name, unit="", data_type=None, usual_low=low, usual_high=high
    )


@pytest.fixture(scope="module")
def tree():
    return fit_surrogate(*draw(2000, 1), seed=7)


@pytest.fixture(scope="module")
def manifest(tree):
    surrogate = describe_surrogate(tree, NAMES, *draw(500, 2))
    return make_manifest(features=[describe(name) for name in NAMES], surrogate=surrogate)


@given(st.lists(st.floats(width=32, allow_infinity=False), min_size=4, max_size=4))
def test_the_rule_that_holds_says_what_the_tree_says(tree, manifest, values):
    vector = np.array([values], dtype=np.float32)

    assert match_rule(manifest, vector).probability == pytest.approx(tree.predict(vector)[0])


def test_exactly_one_rule_holds_for_anybody(manifest):
    shares = [rule.share for rule in manifest.surrogate.rules]

    assert 2 <= len(shares) <= MAX_RULES
    assert sum(shares) == pytest.approx(1)


def test_a_split_of_the_known_from_the_unknown_outlives_json():
    features, _ = draw(2000, 4)
    tree = fit_surrogate(features, np.where(np.isnan(features[:, 0]), 0.7, 0.2), seed=7)
    assert np.isinf(tree.tree_.threshold).any()
    surrogate = describe_surrogate(tree, NAMES, features, tree.predict(features))
    written = make_manifest(features=[describe(name) for name in NAMES], surrogate=surrogate)
    manifest = ReleaseManifest.model_validate_json(written.model_dump_json())

    for value, probability, word in ((1.0, 0.2, "a known"), (np.nan, 0.7, "a unknown")):
        rule = match_rule(manifest, np.array([[value, 0, 0, 0]], dtype=np.float32))
        assert rule.probability == pytest.approx(probability)
        assert rule.text.startswith(word)


def test_fidelity_is_measured_on_rows_the_tree_has_not_seen(tree):
    known = describe_surrogate(tree, NAMES, *draw(500, 2))
    features, said = draw(500, 3)
    unlike = describe_surrogate(tree, NAMES, features, said[::-1])

    assert known.fidelity > 0.8
    assert unlike.fidelity < 0.1


def test_a_lever_moves_every_window_of_what_a_person_can_change():
    features = [describe(column.name, 1.0, 2.0) for column in list_model_inputs()]
    levers = {lever.name: lever for lever in describe_levers(features)}

    assert set(levers) == {"steps", "active_minutes", "sleep_minutes"}
    assert levers["steps"].columns == [
        "steps_mean_28",
        "steps_mean_7",
        "steps_mean_60",
        "steps_last",
    ]


def test_what_nobody_has_data_of_is_no_lever():
    features = [
        describe(column.name, *((None, None) if "sleep" in column.name else (1.0, 2.0)))
        for column in list_model_inputs()
    ]

    assert {lever.name for lever in describe_levers(features)} == {"steps", "active_minutes"}
