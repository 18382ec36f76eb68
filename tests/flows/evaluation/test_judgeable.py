"""Each gate fails a plausible bad release, and a good one passes them all on five seeds."""

import numpy as np
import polars as pl
import pytest

from feature_repo.catalogue import list_model_inputs
from flows.datasets.rows import ModelRows
from flows.evaluation.held_out import HeldOut
from flows.evaluation.judgeable import (
    bound_relative_recall,
    judge_patterns,
    judge_severity,
    measure_judged,
    measure_miss,
)
from flows.evaluation.metrics import (
    auroc,
    bootstrap_difference,
    bootstrap_interval,
    compute_metrics,
    draw_bootstrap_rows,
    measure_slope,
)
from flows.models.families import BASELINE
from mlruns_config.gates import find_failures, load_gates
from mlruns_config.heads import ScoreMap
from tests.fixtures.manifests import make_manifest

INPUTS = [column.name for column in list_model_inputs()]
ROWS, VISITS = 3200, 4
EDGES = ScoreMap(
    probabilities=[0, 0.1, 0.3, 0.5, 1], scores=[0, 25, 50, 75, 100], operating_points={}
)


class World:
    """Held-out people whose true probabilities are known, with the PHQ-9 they answered."""

    def __init__(self, seed: int, rows: int = ROWS) -> None:
        random = np.random.default_rng(seed)
        severity = np.repeat(random.normal(0, 1.2, rows // VISITS), VISITS)
        severity = severity + random.normal(0, 0.5, rows)
        self.log_odds = 1.5 * severity - 1.6
        self.truth = 1 / (1 + np.exp(-self.log_odds))
        self.labels = random.random(rows) < self.truth
        self.totals = np.clip(np.round(7 + 5 * severity + random.normal(0, 3, rows)), 0, 27)
        people = np.array([f"person {n // VISITS}" for n in range(rows)])
        sex = np.where(np.arange(rows) // VISITS % 2, "female", "male")
        self.groups = pl.DataFrame({"sex": sex, "age_band": "30-44", "ethnicity": "unknown"})
        self.rounds = draw_bootstrap_rows(people, seed, 40)

    def judge(
        self, said: np.ndarray, baseline: np.ndarray | None = None, of_the_unknown: float = 0.27
    ) -> tuple[dict[str, float], list[str]]:
        """Return the metrics of a release that says this, and the names of the gates it fails.

        `of_the_unknown` is its probability for people of whom nothing is known.
        """
        found = self.hold_out(said, baseline)
        ours, rounds, baseline = said, self.rounds, found.by_member[BASELINE]
        area = bootstrap_interval(auroc, self.labels, ours, rounds)
        gain = bootstrap_difference(auroc, self.labels, ours, baseline, rounds)
        slope = bootstrap_interval(measure_slope, self.labels, ours, rounds[:20])
        alone = bootstrap_difference(auroc, self.labels, ours, self.totals, rounds)
        metrics = compute_metrics(found.labels, said)
        metrics |= measure_judged(found, self.groups, make_manifest(score_map=EDGES)).metrics
        unknown = np.full(len(said), of_the_unknown)
        metrics |= judge_patterns(found, {"none": said, "survey+wearable+emr": unknown})
        metrics |= {
            "auroc_low": area[0],
            "auroc_gain_low": gain[0],
            "auroc_gain_over_phq9_low": alone[0],
            "calibration_slope_low": slope[0],
            "calibration_slope_high": slope[1],
            "interval_coverage_miss": 0.02,
            "scoring_milliseconds": 1.0,
        }
        gates = [gate for gate in load_gates() if not gate.versus_production]
        return metrics, [failure.split(" ")[0] for failure in find_failures(gates, metrics)]

    def hold_out(self, said: np.ndarray, baseline: np.ndarray | None = None) -> HeldOut:
        features = np.zeros((len(said), len(INPUTS)), np.float32)
        features[:, INPUTS.index("phq9_total")] = self.totals
        rows = ModelRows(features, np.zeros((len(said), 1, 1), np.float32))
        members = {BASELINE: said if baseline is None else baseline}
        return HeldOut(pl.DataFrame(), rows, self.labels, said, members, self.rounds)


def shift(log_odds: np.ndarray, by: np.ndarray | float) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-(log_odds + by))))


@pytest.mark.parametrize("seed", range(1, 6))
def test_a_good_release_passes_every_gate(seed):
    world = World(seed)
    assert world.judge(world.truth)[1] == []


@pytest.fixture(scope="module")
def world() -> World:
    return World(7)


def test_a_release_that_ranks_like_todays_phq9_fails(world):
    said = shift(0.35 * (world.totals - 11), 0.0)
    assert "auroc_gain_over_phq9_low" in world.judge(said)[1]


def test_a_release_that_ranks_worse_than_the_spline_regression_fails(world):
    noise = np.random.default_rng(1).normal(0, 1.0, ROWS)
    assert "auroc_gain_low" in world.judge(shift(world.log_odds, noise), world.truth)[1]


def test_a_release_that_hardly_ranks_fails(world):
    noise = np.random.default_rng(1).normal(0, 8, ROWS)
    assert "auroc_low" in world.judge(shift(world.log_odds, noise))[1]


@pytest.mark.parametrize(
    ("slope", "gate"), [(1.5, "calibration_slope_high"), (0.6, "calibration_slope_low")]
)
def test_a_release_whose_probabilities_are_spread_or_drawn_together_fails(world, slope, gate):
    assert gate in world.judge(shift(slope * world.log_odds, 0.0))[1]


@pytest.mark.parametrize(
    ("by", "gate"), [(0.5, "observed_over_expected_high"), (-0.5, "observed_over_expected_low")]
)
def test_a_release_that_over_or_understates_on_the_whole_fails(world, by, gate):
    assert gate in world.judge(shift(world.log_odds, by))[1]


def test_a_release_that_understates_the_severely_ill_alone_fails(world):
    said = shift(world.log_odds, np.where(world.totals >= 15, -1.5, 0.0))
    assert "severity_ratio_miss" in world.judge(said)[1]


@pytest.mark.parametrize("probability", [0.1, 0.6])
def test_a_release_that_over_or_understates_people_of_whom_nothing_is_known_fails(
    world, probability
):
    failed = world.judge(world.truth, of_the_unknown=probability)[1]
    assert failed == ["pattern_ratio_miss"]


def test_a_release_that_does_no_more_good_than_reviewing_nobody_fails(world):
    # Twice the odds for everyone: the queue fills with people who are well.
    assert "net_benefit_gain_low" in world.judge(shift(0.4 * world.log_odds, 0.4))[1]


def test_a_release_that_does_not_rank_one_group_fails(world):
    noise = np.where(world.groups["sex"] == "female", 40.0, 0.0)
    noise = noise * np.random.default_rng(1).normal(0, 1, ROWS)
    assert "worst_group_auroc_high" in world.judge(shift(world.log_odds, noise))[1]


def test_a_release_that_keeps_one_group_out_of_the_queue_fails(world):
    said = shift(world.log_odds, np.where(world.groups["sex"] == "female", -1.2, 0.0))
    assert "worst_group_recall_high" in world.judge(said)[1]


def test_the_more_groups_are_compared_the_wider_each_interval_is(world):
    found = world.hold_out(world.truth)
    inside = world.groups["sex"].to_numpy() == "female"
    low, high = bound_relative_recall(found, inside, 0.3, 1)
    widest = bound_relative_recall(found, inside, 0.3, 10)

    assert widest[0] < low < 1 < high < widest[1]
    # The quantile of a normal distribution at 1 - 0.05/20 over that at 1 - 0.05/2.
    assert (widest[1] - widest[0]) / (high - low) == pytest.approx(2.807 / 1.960, abs=0.001)


def test_a_release_that_queues_no_person_fails(world):
    assert "worst_group_recall_high" in world.judge(np.minimum(world.truth, 0.29))[1]


def test_a_group_too_small_to_be_judged_is_listed_and_neither_passes_nor_fails():
    small = World(3, rows=360)
    found = small.hold_out(small.truth)
    judged = measure_judged(found, small.groups, make_manifest(score_map=EDGES))

    assert "male" in judged.not_judged["group"].to_list()
    assert judged.metrics["groups_not_judged"] == judged.not_judged.height


def test_without_any_judged_group_the_gates_fail_closed():
    few = World(3, rows=80)
    metrics, _ = judge_severity(few.hold_out(few.truth * 0.01))
    assert metrics == {}
    _, failures = few.judge(few.truth)
    assert {"worst_group_auroc_high", "worst_group_recall_high"} <= set(failures)


@pytest.mark.parametrize(
    ("interval", "miss"),
    [((0.7, 0.9), 0), ((1.2, 1.9), 0), ((0.2, 0.4), np.log(2)), ((2.5, 4.0), np.log(2))],
)
def test_a_ratio_misses_by_how_far_its_interval_lies_outside(interval, miss):
    assert measure_miss(interval) == pytest.approx(miss)
