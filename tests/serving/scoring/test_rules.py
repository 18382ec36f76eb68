"""The rule that holds for a vector, and its text."""

import numpy as np
import pytest

from mlruns_config.manifest import BEYOND_ALL, Condition, FeatureDescription, Rule, Surrogate
from serving.scoring.rules import match_rule
from tests.fixtures.manifests import make_manifest

LABELS = {"phq9_total": ("PHQ-9 total", "points"), "age": ("age", "")}


def describe(name):
    label, unit = LABELS[name]
    usual = {"usual_low": None, "usual_high": None}
    return FeatureDescription(name=name, label=label, unit=unit, data_type=None, **usual)


def condition(feature="phq9_total", threshold=9.5, above=True, if_missing=False):
    return Condition(feature=feature, threshold=threshold, above=above, if_missing=if_missing)


def make_rule(*conditions, probability=0.6, share=0.3):
    return Rule(conditions=list(conditions), probability=probability, share=share)


def match(*rules, total=12.0, age=40.0):
    surrogate = Surrogate(rules=list(rules), fidelity=0.8)
    manifest = make_manifest(features=[describe(name) for name in LABELS], surrogate=surrogate)
    return match_rule(manifest, np.array([[total, age]], dtype=np.float32))


SIDES = (
    make_rule(condition(above=True, if_missing=False), probability=0.6),
    make_rule(condition(above=False, if_missing=True), probability=0.2),
)


def test_a_release_without_rules_has_no_rule_to_show():
    manifest = make_manifest(features=[describe(name) for name in LABELS])

    assert match_rule(manifest, np.zeros((1, 2), dtype=np.float32)) is None


def test_a_vector_of_other_columns_is_an_error():
    surrogate = Surrogate(rules=[make_rule()], fidelity=0.8)
    manifest = make_manifest(features=[describe(name) for name in LABELS], surrogate=surrogate)

    with pytest.raises(ValueError, match="zip"):
        match_rule(manifest, np.zeros((1, 3), dtype=np.float32))


def test_rules_that_are_no_leaves_of_one_tree_are_an_error():
    with pytest.raises(ValueError, match="too many values"):
        match(make_rule(), make_rule())


@pytest.mark.parametrize(
    ("total", "probability"), [(9.0, 0.2), (9.5, 0.2), (10.0, 0.6), (np.nan, 0.2)]
)
def test_the_threshold_itself_is_on_the_lower_side_and_nan_where_the_rule_puts_it(
    total, probability
):
    assert match(*SIDES, total=total).probability == probability


def test_a_rule_holds_where_each_of_its_conditions_does():
    older = condition("age", 65.5)
    rules = (
        make_rule(condition(), older, probability=0.9),
        make_rule(condition(), older.model_copy(update={"above": False}), probability=0.5),
        make_rule(condition(above=False), probability=0.1),
    )

    assert match(*rules, age=70).probability == 0.9
    assert match(*rules, age=60).probability == 0.5
    assert match(*rules, total=3).probability == 0.1


def test_the_text_of_a_rule_has_its_conditions_its_mean_and_its_share():
    part = match(make_rule(condition(), condition("age", 65.5, above=False)), total=12, age=40)

    assert part.text == (
        "PHQ-9 total above 9.5 points and age at most 65.5: 60% on average (30% of people)"
    )
    assert (part.probability, part.share, part.fidelity) == (0.6, 0.3, 0.8)


def test_a_condition_that_takes_the_unknown_says_so():
    part = match(make_rule(condition(above=False, if_missing=True)), total=np.nan)

    assert part.text.startswith("PHQ-9 total at most 9.5 points or unknown: ")


@pytest.mark.parametrize("threshold", [BEYOND_ALL, -BEYOND_ALL])
@pytest.mark.parametrize(
    ("if_missing", "total", "word"), [(True, np.nan, "unknown"), (False, 3, "known")]
)
def test_a_condition_beyond_all_values_asks_whether_one_is_known(
    threshold, if_missing, total, word
):
    part = match(
        make_rule(condition(threshold=threshold, above=threshold < 0, if_missing=if_missing)),
        total=total,
    )

    assert part.text.startswith(f"PHQ-9 total {word}: ")


def test_the_one_rule_of_a_tree_without_splits_holds_for_anyone():
    assert match(make_rule()).text == "anyone: 60% on average (30% of people)"
