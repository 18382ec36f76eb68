"""PROBAST+AI is assessed from the run: each concern turns its own domain, and only that."""

import pytest

from mlruns_config.checklists import RunFacts, list_answers
from tests.fixtures.card_facts import METRICS, make_run_facts
from tests.fixtures.manifests import make_manifest

LINEAGE = {
    "tables": {"surveys": {"version": 3, "rows": 12345, "digest": "d" * 64}},
    "validation": {"run_id": "run-7", "success": "true"},
    "feature_service_hash": "f" * 64,
    "git_commit": "c" * 40,
}
DOMAINS = ("participants and data sources", "predictors", "outcome", "analysis")


def assess(**changes) -> dict[str, str]:
    lineage = LINEAGE | changes.pop("lineage", {})
    return read(make_run_facts(make_manifest(lineage=lineage), **changes))


def read(facts: RunFacts) -> dict[str, str]:
    answers = dict(list_answers(facts))
    return {domain: answers[f"PROBAST+AI {domain}"] for domain in DOMAINS}


def test_a_run_without_a_concern_is_at_low_risk_but_for_what_no_run_can_show():
    found = assess()
    assert found["participants and data sources"].startswith("unclear: setting and sampling")
    assert all(found[domain].startswith("low") for domain in DOMAINS[1:]), found


@pytest.mark.parametrize(
    ("domain", "words", "changes"),
    [
        (DOMAINS[0], "the people are simulated", {"lineage": {"simulated": True}}),
        (DOMAINS[0], "29% of index dates", {"excluded": {"PHQ-9 without another": 2000}}),
        (DOMAINS[1], "were not validated", {"lineage": {"validation": {}}}),
        (DOMAINS[2], "derived from PHQ-9", {"metrics": METRICS | {"adjudicated_share": 0.4}}),
        (
            DOMAINS[3],
            "12 held-out outcomes",
            {"parts": {"fitting": (9, 2000), "held out": (90, 12)}},
        ),
        (DOMAINS[3], "no later months", {"split_in_time": False}),
        (
            DOMAINS[3],
            "the calibration slope does not hold 1",
            {"metrics": METRICS | {"calibration_slope_high": 0.95}},
        ),
    ],
)
def test_a_concern_is_named_in_its_domain_alone(domain, words, changes):
    found = assess(**changes)
    assert found[domain].startswith("high: ")
    assert words in found[domain]
    before = assess()
    assert {name: text for name, text in found.items() if name != domain} == {
        name: text for name, text in before.items() if name != domain
    }


def test_what_was_not_measured_is_unclear_and_not_low():
    metrics = {name: value for name, value in METRICS.items() if "slope_" not in name}
    assert assess(metrics=metrics)["analysis"].startswith("unclear: calibration_slope")


def test_answers_hold_the_numbers_of_the_run():
    answers = dict(list_answers(make_run_facts(make_manifest(lineage=LINEAGE))))
    assert "1,700 with 340 held out" in answers["TRIPOD+AI 10 sample size"]
    assert answers["TRIPOD+AI 7 preparation of data"].startswith("40 PHQ-9 without another")
    assert "9 groups assessed, 2 too small" in answers["TRIPOD+AI 14 fairness"]
