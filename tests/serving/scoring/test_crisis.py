import math
from datetime import UTC, datetime, timedelta
from itertools import product

import numpy as np
import pytest

from feature_repo.answer_features import STORED_PHQ9_ITEMS
from feature_repo.online import Answers, OnlineFeatures
from serving.scoring.assessment import Assessment, Explanations, RuleFindings
from serving.scoring.crisis import (
    CrisisFinding,
    SelfHarmSignal,
    find_crisis,
    find_sent_crisis,
    read_signal,
    read_stored_signal,
)
from serving.scoring.doubts import Estimate, Interval
from serving.scoring.estimate import Band, BandEdges, Inputs
from serving.scoring.loaded_release import Release
from serving.screening.composition import Thresholds, compose_answer
from tests.fixtures.manifests import make_manifest

LAST_ITEM = STORED_PHQ9_ITEMS[-1]
THRESHOLDS = Thresholds(BandEdges(), 75)


def test_every_answer_vector_with_item_9_above_zero_forces_the_top_band():
    """All 262,144 of them: 196,608 force it, the others do not."""
    forced = sum(
        read_signal(answers, None).forces_top_band for answers in product(range(4), repeat=9)
    )

    assert forced == 196_608


@pytest.mark.parametrize("others", [[0] * 8, [3] * 8, [None] * 8])
@pytest.mark.parametrize(
    ("item_9", "signal"),
    [(0, "denied"), (1, "present"), (2, "present"), (3, "present"), (None, "unreadable")],
)
def test_item_9_alone_decides(others, item_9, signal):
    assert read_signal([*others, item_9], None) == signal


@pytest.mark.parametrize(
    ("total", "signal"), [(0, "denied"), (1, "unknown"), (24, "unknown"), (25, "present")]
)
def test_a_total_says_of_item_9_only_what_it_proves(total, signal):
    assert read_signal(None, total) == signal


def test_an_unreadable_item_9_forces_the_top_band_like_the_worst_answer():
    assert SelfHarmSignal.UNREADABLE.forces_top_band


def test_without_phq9_nothing_is_said():
    assert read_signal(None, None) is SelfHarmSignal.NOT_ASKED
    assert not SelfHarmSignal.NOT_ASKED.forces_top_band


@pytest.mark.nightly
def test_every_answer_vector_above_zero_on_item_9_is_answered_as_critical_and_reviewed():
    """Whole answers, of a case the models think nothing of: all 262,144."""
    assessment = make_calm_assessment()
    crises = 0
    for answers in product(range(4), repeat=9):
        findings = find_by(answers)
        answer = compose_answer("a" * 32, findings, assessment, [], THRESHOLDS)
        crisis = answers[8] > 0
        assert (answer.risk_band is Band.CRITICAL) is crisis
        assert answer.needs_review is crisis
        assert (answer.crisis_guidance is not None) is crisis
        assert answer.model_score == 1.0
        crises += crisis

    assert crises == 196_608


@pytest.mark.parametrize("answers", [[0] * 8, [3] * 8, [None] * 8])
@pytest.mark.parametrize("item_9", [1, 2, 3, None])
@pytest.mark.parametrize("queues", [True, False])
def test_without_any_model_the_crisis_rule_still_answers(answers, item_9, queues):
    thresholds = Thresholds(BandEdges(), 75, queues)
    findings = find_by([*answers, item_9])
    answer = compose_answer("a" * 32, findings, None, ["release"], thresholds)

    assert (answer.risk_score, answer.risk_band) == (100, Band.CRITICAL)
    assert answer.needs_review
    assert answer.crisis_guidance


def find_by(phq9):
    return RuleFindings(find_sent_crisis(Answers(datetime.now(UTC), phq9)))


def make_calm_assessment() -> Assessment:
    interval = Interval(0.0, 0.02)
    said = Estimate(0.01, 1.0, interval, confidence=1.0, contested_score=1.0)
    return Assessment(
        release=Release(1, make_manifest(), {}, datetime.now(UTC)),
        features=OnlineFeatures({}),
        estimate=said,
        members=[],
        inputs=Inputs(np.zeros((1, 1), np.float32)),
        missing_data=[],
        explanations=Explanations(),
    )


@pytest.mark.parametrize(
    ("changes", "signal"),
    [
        ({LAST_ITEM: 1}, SelfHarmSignal.PRESENT),
        ({LAST_ITEM: 0}, SelfHarmSignal.DENIED),
        ({LAST_ITEM: math.nan}, SelfHarmSignal.UNREADABLE),
        ({LAST_ITEM: 3, "days_since_phq9": 14}, SelfHarmSignal.PRESENT),
        ({LAST_ITEM: 3, "days_since_phq9": 15}, SelfHarmSignal.NOT_ASKED),
        ({LAST_ITEM: 3, "days_since_phq9": math.nan}, SelfHarmSignal.NOT_ASKED),
    ],
)
def test_a_stored_answer_to_item_9_speaks_for_two_weeks(changes, signal):
    stored = dict.fromkeys(STORED_PHQ9_ITEMS, 0.0) | {"days_since_phq9": 3}

    assert read_stored_signal(stored | changes) is signal


def test_without_a_stored_questionnaire_nothing_was_asked():
    assert read_stored_signal({"days_since_phq9": 1}) is SelfHarmSignal.NOT_ASKED


NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


def store(item_9, days_ago):
    items = dict.fromkeys(STORED_PHQ9_ITEMS, 0.0) | {LAST_ITEM: item_9}
    return items | {"days_since_phq9": days_ago}


@pytest.mark.parametrize("sent", [{"phq9": [0] * 9}, {"phq9_total": 0}, {}])
@pytest.mark.parametrize("item_9", [1.0, 3.0, math.nan])
def test_no_negative_answer_lowers_a_stored_crisis(sent, item_9):
    finding = find_crisis(Answers(NOW, **sent), store(item_9, days_ago=13), None)

    assert finding.forces_top_band
    assert finding.is_stored


def test_a_crisis_that_was_sent_stands_before_a_stored_one():
    sent = Answers(NOW, [0] * 8 + [1])

    assert find_crisis(sent, store(3.0, days_ago=1), None) == CrisisFinding(
        SelfHarmSignal.PRESENT, level=1, is_stored=False
    )


@pytest.mark.parametrize(("days_ago", "closed"), [(3, True), (2, True), (1, False)])
def test_a_clinician_closes_a_stored_crisis_by_deciding_it_afterwards(days_ago, closed):
    decided_at = NOW - timedelta(days=2)
    finding = find_crisis(Answers(NOW, [0] * 9), store(2.0, days_ago), decided_at)

    assert finding.forces_top_band is not closed


@pytest.mark.parametrize("answers", [Answers(NOW), Answers(NOW, phq9_total=10)], ids=str)
def test_without_a_crisis_the_level_is_zero_though_item_9_is_not_known(answers):
    assert find_sent_crisis(answers).level == 0


@pytest.mark.parametrize(("item_9", "level"), [(1, 1), (2, 2), (3, 3), (None, 3), (0, 0)])
def test_the_level_of_a_crisis_is_the_answer_and_an_unreadable_one_is_the_worst(item_9, level):
    assert find_sent_crisis(Answers(NOW, [0] * 8 + [item_9])).level == level
