"""Which members earn their place beside the baseline."""

import numpy as np
import pytest

from flows.evaluation import selection
from flows.evaluation.selection import Decision, select_members, stack_subset
from flows.models.families import BASELINE
from flows.models.stacking import to_log_odds

PEOPLE, EACH = 500, 3


@pytest.fixture(autouse=True)
def fewer_rounds(monkeypatch):
    """The effects drawn here are plain enough for a fifth of the rounds."""
    monkeypatch.setattr(selection, "SELECTION_ROUNDS", 40)


def name_people() -> np.ndarray:
    return np.repeat([f"person {n}" for n in range(PEOPLE)], EACH)


def to_probability(log_odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-log_odds))


class Drawn:
    """Two causes of an outcome; the baseline knows only the first."""

    def __init__(self, seed: int = 1) -> None:
        self.random = np.random.default_rng(seed)
        rows = PEOPLE * EACH
        self.first, self.second, self.third = self.random.normal(0, 1, (3, rows))
        risk = to_probability(self.first + 1.2 * self.second + 0.6 * self.third - 1.5)
        self.labels = self.random.random(rows) < risk
        self.baseline = to_probability(self.first - 1.5)

    def guess(self) -> np.ndarray:
        return self.random.random(len(self.labels))

    def select(self, **members: np.ndarray) -> list[Decision]:
        predictions = {BASELINE: self.baseline} | members
        return select_members(predictions, self.labels, name_people(), seed=1)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_member_of_pure_noise_does_not_join(seed):
    drawn = Drawn(seed)
    (decision,) = drawn.select(guessing=drawn.guess())

    assert not decision.joins
    assert decision.gain_low <= 0
    assert decision.gain == pytest.approx(0, abs=0.01)


def test_a_copy_of_the_baseline_does_not_join():
    drawn = Drawn()
    (decision,) = drawn.select(copy=drawn.baseline)

    assert not decision.joins
    assert decision.gain == pytest.approx(0, abs=1e-6)


def test_a_member_that_truly_adds_joins():
    drawn = Drawn()
    (decision,) = drawn.select(other=to_probability(drawn.second))

    assert decision.joins
    assert 0.02 < decision.gain_low < decision.gain < decision.gain_high


def test_the_baseline_is_always_there_and_never_judged():
    drawn = Drawn()
    assert drawn.select() == []
    # Even where it is worth nothing and another knows everything.
    drawn.baseline = drawn.guess()
    decisions = drawn.select(better=to_probability(drawn.second), guessing=drawn.guess())

    assert {decision.member for decision in decisions} == {"better", "guessing"}


def test_a_release_without_the_baseline_is_not_selected():
    drawn = Drawn()
    with pytest.raises(KeyError, match=BASELINE):
        select_members({"lightgbm": drawn.guess()}, drawn.labels, name_people(), seed=1)


def test_members_are_taken_best_first_and_the_left_out_come_last():
    drawn = Drawn()
    decisions = drawn.select(
        guessing=drawn.guess(),
        good=to_probability(drawn.third),
        best=to_probability(drawn.second),
    )

    assert [(one.member, one.joins) for one in decisions] == [
        ("best", True),
        ("good", True),
        ("guessing", False),
    ]


def test_a_member_that_repeats_one_already_taken_is_left_out():
    drawn = Drawn()
    noisier = to_probability(drawn.second + drawn.random.normal(0, 0.3, len(drawn.second)))
    decisions = drawn.select(noisier=noisier, exact=to_probability(drawn.second))

    assert [(one.member, one.joins) for one in decisions] == [("exact", True), ("noisier", False)]


def test_a_large_unsure_gain_does_not_bar_a_smaller_sure_one():
    drawn = Drawn()
    people = name_people()
    # All of one member's gain lies with a single individual of very many rows.
    people[: len(people) // 4] = people[0]
    lucky = drawn.baseline.copy()
    own = people == people[0]
    lucky[own] = np.where(drawn.labels[own], 0.95, 0.02)
    elsewhere = to_log_odds(lucky[~own]) + drawn.random.normal(0, 1, (~own).sum())
    lucky[~own] = to_probability(elsewhere)
    members = {"lucky": lucky, "sure": to_probability(drawn.third)}
    alone = {
        name: select_members({BASELINE: drawn.baseline, name: said}, drawn.labels, people, seed=1)[
            0
        ]
        for name, said in members.items()
    }
    decisions = select_members({BASELINE: drawn.baseline} | members, drawn.labels, people, 1)

    assert alone["lucky"].gain > alone["sure"].gain > 0
    assert [alone["lucky"].joins, alone["sure"].joins] == [False, True]
    assert decisions[0] == alone["sure"]


def test_the_same_seed_decides_the_same():
    drawn = Drawn()
    member = to_probability(drawn.third)
    assert drawn.select(other=member) == drawn.select(other=member)


def test_only_the_named_members_are_stacked():
    drawn = Drawn()
    predictions = {BASELINE: drawn.baseline, "other": to_probability(drawn.second)}
    alone = stack_subset([BASELINE], predictions, drawn.labels)

    # One member, one weight: the order of its rows stays.
    assert (np.argsort(alone) == np.argsort(drawn.baseline)).all()


@pytest.mark.parametrize(("joins", "verdict"), [(True, "joins"), (False, "is left out")])
def test_a_decision_is_told_with_its_gain_and_interval(joins, verdict):
    decision = Decision("rnn", joins, 0.0123, -0.001, 0.03)
    assert decision.describe() == f"rnn {verdict}: +0.0123 (-0.0010 to +0.0300)"
