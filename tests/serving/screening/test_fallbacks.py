"""Which release answers where the first cannot score, and when the rules answer alone."""

from datetime import UTC, datetime

import pytest

from feature_repo.online import Answers
from mlruns_config.severity import load_severity_rules
from serving.errors import ReleaseUnavailableError, ScoringFailedError
from serving.releases.watcher import Choice
from serving.scoring.assessment import Case, ExplanationOptions, RuleFindings
from serving.scoring.crisis import find_sent_crisis
from serving.screening.screen import apply_release, assess_case
from tests.fixtures.manifests import make_unloaded_release

OPTIONS = ExplanationOptions()
BROKEN = make_unloaded_release(2)
CALM, SEVERE, CRISIS = [0] * 9, [3] * 8 + [0], [0] * 8 + [1]


def make_case(phq9):
    return Case(Answers(datetime.now(UTC), phq9), frozenset({"survey"}))


def find_rules(case) -> RuleFindings:
    return case.apply_rules(None, load_severity_rules())


def assess(phq9, choice):
    case = make_case(phq9)
    return assess_case(case, find_rules(case), choice, OPTIONS)


def test_without_a_release_and_without_a_rule_there_is_no_answer():
    with pytest.raises(ReleaseUnavailableError):
        assess(CALM, None)


@pytest.mark.parametrize("choice", [Choice(BROKEN), Choice(BROKEN, "candidate", BROKEN)])
def test_where_no_release_can_score_and_no_rule_holds_there_is_no_answer(choice):
    with pytest.raises(ScoringFailedError):
        assess(CALM, choice)


@pytest.mark.parametrize("phq9", [SEVERE, CRISIS], ids=["severe", "crisis"])
@pytest.mark.parametrize(
    "choice",
    [None, Choice(BROKEN), Choice(BROKEN, "candidate", BROKEN)],
    ids=["none", "one", "two"],
)
def test_where_no_release_can_score_the_rules_answer(phq9, choice):
    assessed = assess(phq9, choice)

    assert assessed.assessment is None
    assert assessed.degraded == ["release"]
    assert assessed.findings.decide_alone


def test_any_error_of_a_release_is_a_failure_to_score():
    with pytest.raises(ScoringFailedError) as failed:
        apply_release(None, make_case(CALM), OPTIONS)  # type: ignore[arg-type]

    assert isinstance(failed.value.__cause__, AttributeError)


def test_a_crisis_is_found_whatever_the_release_does():
    assert find_rules(make_case(CRISIS)).crisis == find_sent_crisis(make_case(CRISIS).answers)
