"""Weights and score map: monotone, bounded, the same in serving."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.datasets.rows import ModelRows
from flows.models.member import FittingData
from flows.models.out_of_fold import cross_fit
from flows.models.stacking import fit_stacker, make_score_map, stack
from mlruns_config.heads import Calibration, Stacker
from mlruns_config.manifest import ReleaseManifest
from serving.scoring.doubts import Outputs, estimate
from tests.fixtures.manifests import PIN, make_manifest

probabilities = st.floats(0, 1, allow_nan=False)
quick = settings(deadline=None, max_examples=60)


def draw(rows: int = 600, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = random.beta(1, 5, rows)
    return truth, random.random(rows) < truth


def name_people(rows: int, each: int = 3) -> pl.Series:
    return pl.Series([f"person {n // each}" for n in range(rows)])


def test_a_member_that_only_guesses_gets_no_weight():
    truth, labels = draw(4000)
    guesses = np.random.default_rng(2).random(4000)
    stacker = fit_stacker({"good": truth, "guessing": guesses}, labels)

    assert set(stacker.coefficients) == {"good"}
    assert stacker.coefficients["good"] == pytest.approx(1, abs=0.1)


def test_a_member_that_is_wrong_is_not_turned_round():
    truth, labels = draw(2000)
    stacker = fit_stacker({"good": truth, "wrong": 1 - truth}, labels)

    assert set(stacker.coefficients) == {"good"}
    assert stacker.coefficients["good"] == pytest.approx(1, abs=0.15)  # nothing was lent to it


def test_equal_members_share_the_weight():
    truth, labels = draw(2000)
    weights = fit_stacker({"one": truth, "two": truth}, labels).coefficients

    assert weights["one"] == pytest.approx(weights["two"], abs=0.02)


def test_without_any_member_every_row_gets_the_same_probability():
    truth, _ = draw(5)
    stacked = stack(Stacker(intercept=-2, coefficients={}), {"guessing": truth})

    assert stacked == pytest.approx(np.full(5, 1 / (1 + np.exp(2))))


def test_out_of_fold_predictions_never_saw_the_individual():
    rows = 120
    people = name_people(rows)
    numbers = np.array([int(name.split()[1]) for name in people], np.float32)
    data = FittingData(
        names=("person",),
        rows=ModelRows(numbers[:, None], np.zeros((rows, 1, 1), np.float32)),
        labels=numbers % 2 == 0,
        futures=np.zeros((rows, 1), np.float32),
        stopping_rows=ModelRows(np.zeros((0, 1), np.float32), np.zeros((0, 1, 1), np.float32)),
        stopping_labels=np.zeros(0, bool),
        stopping_futures=np.zeros((0, 1), np.float32),
        seed=1,
    )

    class Memory:
        """Says whether it has seen an individual."""

        def __init__(self, learnt: FittingData) -> None:
            self.seen = set(learnt.rows.features[:, 0])

        def predict(self, asked: ModelRows) -> np.ndarray:
            return np.array([value in self.seen for value in asked.features[:, 0]], float)

    assert cross_fit(data, people, Memory).predict(data.rows).tolist() == [0] * rows


@quick
@given(
    st.dictionaries(st.sampled_from(["a", "b"]), st.tuples(st.floats(0, 3), probabilities)),
    st.floats(-5, 5),
    st.lists(st.tuples(probabilities, probabilities), min_size=2, max_size=8),
)
def test_serving_says_what_training_says(members, intercept, knots):
    weights = {name: weight for name, (weight, _) in members.items()}
    manifest = make_manifest(
        members=[PIN.model_copy(update={"name": name}) for name in members],
        stacker=Stacker(intercept=intercept, coefficients=weights),
        calibration=Calibration(
            kind="isotonic",
            inputs=sorted(knot for knot, _ in knots),
            outputs=sorted(knot for _, knot in knots),
        ),
    )
    said = {"unweighed": 0.3} | {name: said for name, (_, said) in members.items()}
    stacked = stack(manifest.stacker, {name: np.array([one]) for name, one in said.items()})
    trained = manifest.calibration.apply(stacked)

    assert estimate(manifest, Outputs(said), ()).probability == pytest.approx(trained[0], abs=1e-9)


@quick
@given(st.lists(probabilities, min_size=1, max_size=200))
def test_any_probabilities_make_a_score_map(values):
    score_map = make_score_map(np.array(values))

    assert score_map.scores == [0, 25, 50, 75, 100]
    assert set(score_map.operating_points) == {"25", "50", "75"}
    assert make_manifest(score_map=score_map).score_map == score_map  # strictly increasing


@quick
@given(st.lists(probabilities, min_size=20, max_size=200), probabilities, probabilities)
def test_a_higher_probability_never_scores_lower(values, one, other):
    manifest = make_manifest(score_map=make_score_map(np.array(values)))
    low, high = (score(manifest, probability) for probability in sorted([one, other]))

    assert 0 <= low <= high <= 100


def score(manifest: ReleaseManifest, probability: float) -> float:
    return estimate(manifest, Outputs({"lightgbm": probability}), ()).score


def test_the_edges_leave_their_shares_above():
    values = np.random.default_rng(1).beta(1, 6, 10_000)
    edges = make_score_map(values).probabilities

    assert [(values >= edge).mean() for edge in edges[1:-1]] == pytest.approx(
        [0.4, 0.15, 0.05], abs=0.001
    )
