import numpy as np
import pytest

from feature_repo.catalogue import list_model_inputs
from mlruns_config.heads import Stacker
from serving.releases.loading import load_release
from serving.releases.registry import Registry
from serving.scoring.assessment import explain_release, predict_members
from serving.scoring.estimate import Inputs, stack_log_odds
from serving.scoring.explainers import Attribution
from serving.scoring.reasons import (
    combine_attributions,
    describe_reason,
    explain,
    lay_out_subjects,
    name_subject,
)
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
        said = predict_members(release, Inputs(vector), {})
        outputs = {name: np.array([probability]) for name, probability in said.items()}
        (stacked,) = stack_log_odds(stacker, outputs)
        assert combined.log_odds == pytest.approx(stacked, abs=1e-4)


def test_reasons_are_few_and_sorted_by_strength(release):
    for row in draw_training_data()[0][:100]:
        reasons = explain_release(release, row[np.newaxis])
        effects = [abs(reason.effect) for reason in reasons]
        directions = [reason.direction for reason in reasons]
        assert effects == sorted(effects, reverse=True)
        assert directions.count("raises") <= 3
        assert directions.count("lowers") <= 2
        assert all((reason.effect > 0) == (reason.direction == "raises") for reason in reasons)


def explain_effects(effects: dict[str, float], **values: float):
    """Explain a case whose features have these effects and values, 1 where none is given."""
    names = [feature.name for feature in FEATURES]
    vector = np.array([[values.get(name, 1.0) for name in names]], np.float32)
    contributions = np.array([effects.get(name, 0.0) for name in names])
    return explain(FEATURES, vector, Attribution(0.0, contributions))


def test_missing_data_give_no_reason():
    reasons = explain_effects({"steps_mean_28": -0.5, "age": 0.2}, steps_mean_28=np.nan)

    assert [reason.feature for reason in reasons] == ["age"]


def test_the_symptoms_of_one_questionnaire_are_one_reason():
    (reason,) = explain_effects({"phq9_total": 0.5, "phq9_item_9": 0.25}, phq9_total=24)

    assert (reason.feature, reason.effect) == ("phq9_total", 0.75)


@pytest.mark.parametrize(
    "columns",
    [
        ["psychiatric_encounters_365", "psychiatric_encounters_90", "days_since_psychiatric"],
        ["acute_psychiatric_365", "days_since_acute_psychiatric"],
        ["encounters_365", "encounters_90"],
    ],
)
def test_care_of_one_kind_is_one_reason_that_shows_the_year(columns):
    names = tuple(column.name for column in list_model_inputs())
    (subject,) = [
        subject
        for subject in lay_out_subjects(names).subjects
        if set(columns) & {names[column] for column in subject.columns}
    ]

    assert names[subject.columns[0]] == columns[0]
    assert {names[column] for column in subject.columns} == set(columns)


@pytest.mark.parametrize(
    ("female", "male", "shown"), [(1, 0, "sex: female"), (0, 1, "sex: male"), (0, 0, "sex: other")]
)
def test_sex_is_one_reason_that_shows_the_answer(female, male, shown):
    usual = FEATURES[0].model_copy(update={"unit": "yes/no"})
    columns = [
        usual.model_copy(update={"name": f"sex_{answer}", "label": f"sex: {answer}"})
        for answer in ("female", "male")
    ]
    vector = np.array([[female, male]], np.float32)
    (reason,) = explain(columns, vector, Attribution(0.0, np.array([-0.05, -0.05])))

    assert reason.text == f"{shown}; lowers the priority, small effect"
    assert reason.effect == -0.1


def test_days_since_a_questionnaire_are_no_care():
    assert name_subject("days_since_phq9") == "days_since_phq9"
    assert name_subject("antidepressant_active") == "antidepressant_active"


@pytest.mark.parametrize(("total", "shown"), [(9, 1), (10, 0), (24, 0), (np.nan, 0)])
def test_symptoms_of_a_moderate_level_are_never_shown_as_lowering(total, shown):
    reasons = explain_effects({"phq9_total": -0.5, "phq9_item_9": -0.1}, phq9_total=total)

    assert len(reasons) == shown


def test_the_weaker_direction_is_shown_beside_strong_reasons():
    effects = {"phq9_total": 3.0, "gad7_total": 2.5, "steps_mean_28": 2.0, "age": -0.1}

    assert [reason.effect for reason in explain_effects(effects)] == [3.0, 2.5, 2.0, -0.1]


@pytest.mark.parametrize(
    ("feature", "value", "effect", "text"),
    [
        ("phq9_total", 24, 0.8, "PHQ-9 24 of 27, severe; raises the priority, large effect"),
        (
            "emergency_visits_365",
            4,
            0.1,
            "4 emergency visits in the past year; raises the priority, small effect",
        ),
        (
            "steps_mean_28",
            12000,
            -0.3,
            "steps a day, mean of 28 days: 12,000 steps (2,500 to 11,000 is usual in this "
            "cohort); lowers the priority, moderate effect",
        ),
    ],
)
def test_a_reason_gives_value_usual_range_direction_and_size(feature, value, effect, text):
    (described,) = [one for one in FEATURES if one.name == feature]

    assert describe_reason(described, value, effect).text == text


def test_a_feature_without_usual_range_is_shown_by_its_value():
    feature = FEATURES[-1].model_copy(update={"usual_low": None, "unit": ""})

    assert describe_reason(feature, 3.0, 0.1).text.startswith("age: 3;")


def test_where_a_member_cannot_be_explained_the_others_stand_for_its_weight():
    stacker = Stacker(intercept=-1, coefficients={"logistic_regression": 0.25, "rnn": 0.75})
    explained = {"logistic_regression": Attribution(-0.4, np.array([0.8, 0.0]))}

    combined = combine_attributions(stacker, explained, 2)

    assert combined.contributions == pytest.approx([0.8, 0.0])
    assert combined.baseline == pytest.approx(-1.4)
