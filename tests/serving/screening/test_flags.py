"""Each switch and number of the deployment guide does what it says, and nothing else."""

import pytest

from mlruns_config.manifest import Condition, Rule, Surrogate
from tests.fixtures.api import (
    HIGH_ANSWERS,
    LOW_ANSWERS,
    MemoryReader,
    make_headers,
    make_settings,
    run_app,
)
from tests.fixtures.releases import SLEEP

SPLIT = {"feature": "phq9_total", "threshold": 9.5, "if_missing": False}
SURROGATE = Surrogate(
    rules=[
        Rule(conditions=[Condition(above=True, **SPLIT)], probability=0.6, share=0.3),
        Rule(
            conditions=[Condition(above=False, **(SPLIT | {"if_missing": True}))],
            probability=0.1,
            share=0.7,
        ),
    ],
    fidelity=0.8,
)


MILD = [1, 1, 1, 1, 1, 0, 0, 0, 0]


@pytest.fixture(scope="module")
def explained(releases):
    return releases.publish(levers=[SLEEP], surrogate=SURROGATE)


@pytest.fixture
def ask(database_url, mlflow_url, explained, grant):
    """Screen somebody who sleeps little with a worker of these settings."""

    def screen(phq9=HIGH_ANSWERS, **changes):
        individual, reader = grant(), MemoryReader()
        reader.stored[individual] = {"sleep_minutes_mean_28": 330, "steps_mean_28": 3000}
        settings = make_settings(database_url, mlflow_url, **changes)
        with run_app(settings, reader) as client:
            body = {"anonymized_id": individual, "survey_data": {"phq9": phq9}}
            return client.post("/screen", json=body, headers=make_headers()).json()

    return screen


def test_explanations_are_given_by_default_rules_are_not(ask):
    answer = ask()

    assert answer["reasons"]
    assert answer["counterfactuals"]
    assert answer["rule"] is None


def test_enable_shap_explanations(ask):
    answer = ask(enable_shap_explanations=False)

    assert answer["reasons"] == []
    assert answer["counterfactuals"]


def test_enable_counterfactuals(ask):
    answer = ask(enable_counterfactuals=False)

    assert answer["counterfactuals"] == []
    assert answer["reasons"]


def test_enable_rule_extraction(ask):
    rule = ask(enable_rule_extraction=True)["rule"]

    assert rule["text"] == "PHQ-9 total above 9.5 points: 60% on average (30% of people)"
    assert (rule["probability"], rule["share"], rule["fidelity"]) == (0.6, 0.3, 0.8)


def test_enable_human_review_queue_never_silences_the_rules(ask):
    off = {"enable_human_review_queue": False, "human_review_threshold": 1}

    assert ask(MILD, human_review_threshold=1)["needs_review"] is True
    assert ask(MILD, **off)["needs_review"] is False
    severe = ask(HIGH_ANSWERS, **off)
    assert [reason["code"] for reason in severe["review_reasons"]] == ["severe_phq9"]
    crisis = ask([*LOW_ANSWERS[:8], 1], **off)
    assert [reason["code"] for reason in crisis["review_reasons"]] == ["crisis_item"]


def test_human_review_threshold(ask):
    score = ask()["risk_score"]

    def codes(threshold):
        found = ask(human_review_threshold=threshold)["review_reasons"]
        return [reason["code"] for reason in found]

    assert "score" in codes(score)
    assert "score" not in codes(min(100, score + 0.1))


def test_risk_thresholds_move_the_bands(ask):
    score = ask()["risk_score"]
    edges = {"risk_threshold_low": 1, "risk_threshold_moderate": 2, "risk_threshold_high": 3}

    assert score > 3
    assert ask(**edges)["risk_band"] == "critical"
    assert ask(risk_threshold_low=100)["risk_band"] == "low"
