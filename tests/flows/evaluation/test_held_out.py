"""The held-out individuals, scored and counted."""

from datetime import date

import numpy as np
import polars as pl
import pytest

from feature_repo.catalogue import list_model_inputs
from feature_repo.consent_terms import DATA_TYPES
from feature_repo.weekly_sequence import SEQUENCE_CHANNELS, SEQUENCE_WEEKS
from flows.datasets.rows import ModelRows
from flows.datasets.training_set import Split, TrainingSet
from flows.evaluation.held_out import (
    HeldOut,
    compare_with_baseline,
    measure_intervals,
    measure_operating_points,
    measure_without_data,
    score_held_out,
)
from flows.evaluation.metrics import OneSidedLabelsError, compute_metrics, draw_bootstrap_rows
from flows.models.families import BASELINE
from mlruns_config.heads import ScoreMap, Stacker
from tests.fixtures.manifests import make_manifest

INPUTS = list_model_inputs()
COLUMN_TYPES = [column.data_type for column in INPUTS]
CHANNEL_TYPES = [data_type for _, _, data_type in SEQUENCE_CHANNELS.values()]
EDGES = ScoreMap(
    probabilities=[0, 0.2, 0.4, 0.6, 1], scores=[0, 25, 50, 75, 100], operating_points={}
)


class ReadsOneColumn:
    """A member whose estimate is one column; where that is missing, a half."""

    def __init__(self, column: int) -> None:
        self.column = column
        self.asked: list[ModelRows] = []

    def predict(self, rows: ModelRows) -> np.ndarray:
        self.asked.append(rows)
        return np.nan_to_num(rows.features[:, self.column].astype(float), nan=0.5)


def draw_model_rows(rows: int, seed: int = 1) -> ModelRows:
    random = np.random.default_rng(seed)
    shape = (rows, SEQUENCE_WEEKS, len(SEQUENCE_CHANNELS))
    return ModelRows(
        random.uniform(0.01, 0.99, (rows, len(INPUTS))).astype(np.float32),
        random.random(shape).astype(np.float32),
    )


def hold_out(labels: np.ndarray, probabilities: np.ndarray, rows: ModelRows | None = None):
    people = np.array([f"person {n // 2}" for n in range(len(labels))])
    return HeldOut(
        frame=pl.DataFrame(),
        rows=rows or draw_model_rows(len(labels)),
        labels=labels,
        probabilities=probabilities,
        by_member={BASELINE: probabilities[::-1], "lightgbm": probabilities},
        rounds=draw_bootstrap_rows(people, 1, 50),
    )


def draw(rows: int = 400, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    probabilities = random.beta(1, 3, rows)
    return random.random(rows) < probabilities, probabilities


def make_training_set(labels: list[bool], held_out: list[bool]) -> TrainingSet:
    rows = len(labels)
    nobody, chosen = np.zeros(rows, bool), np.array(held_out)
    frame = pl.DataFrame(
        {
            "anonymized_id": [f"person {n}" for n in range(rows)],
            "index_date": [date(2025, 1, 1)] * rows,
            "adverse_course": labels,
            "age": [40.0] * rows,
        }
    )
    futures = np.zeros((rows, 13), np.float32)
    split = Split(~chosen, nobody, nobody, chosen)
    return TrainingSet(frame, draw_model_rows(rows), futures, split)


@pytest.mark.parametrize(
    ("held_out", "words"),
    [
        ([True, True, False, False], "2 of the 2 held-out rows"),
        ([False, False, True, True], "0 of the 2 held-out rows"),
        ([False] * 4, "0 of the 0 held-out rows"),
    ],
)
def test_held_out_rows_of_one_outcome_are_refused_with_their_count(held_out, words):
    training_set = make_training_set([True, True, False, False], held_out)
    with pytest.raises(OneSidedLabelsError, match=words):
        score_held_out(training_set, {BASELINE: ReadsOneColumn(0)}, make_manifest(), 1)


def test_only_held_out_rows_are_scored_each_with_its_own_answer():
    training_set = make_training_set(
        [True, False, True, False, True], [False, True, True, False, True]
    )
    member = ReadsOneColumn(0)
    manifest = make_manifest(stacker=Stacker(intercept=0, coefficients={"lightgbm": 1}))
    found = score_held_out(training_set, {"lightgbm": member}, manifest, 1)

    assert found.frame["anonymized_id"].to_list() == ["person 1", "person 2", "person 4"]
    assert found.labels.tolist() == [False, True, True]
    assert {len(rows) for rows in member.asked} == {3}
    expected = training_set.rows.features[[1, 2, 4], 0]
    assert found.by_member["lightgbm"] == pytest.approx(expected)
    assert found.probabilities == pytest.approx(expected)
    assert all(set(rows) <= {0, 1, 2} for rows in found.rounds)


def test_operating_points_are_those_of_a_hand_count():
    probabilities = np.array([0.1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.1, 0.9])
    labels = np.array([1, 0, 0, 1, 0, 1, 0, 1, 0, 1], bool)
    found = measure_operating_points(
        hold_out(labels, probabilities), make_manifest(score_map=EDGES)
    )

    # At or above 0.2: 7 rows, 4 of the 5 outcomes; 0.4: 5 rows, 3; 0.6: 3 rows, 2.
    assert found == pytest.approx(
        {
            "share_score_25": 0.7,
            "sensitivity_score_25": 4 / 5,
            "ppv_score_25": 4 / 7,
            "share_score_50": 0.5,
            "sensitivity_score_50": 3 / 5,
            "ppv_score_50": 3 / 5,
            "share_score_75": 0.3,
            "sensitivity_score_75": 2 / 5,
            "ppv_score_75": 2 / 3,
        }
    )


def test_shares_of_the_bands_add_up_to_all_rows():
    labels, probabilities = draw()
    found = measure_operating_points(
        hold_out(labels, probabilities), make_manifest(score_map=EDGES)
    )
    above = [1, *(found[f"share_score_{score}"] for score in (25, 50, 75)), 0]
    counted = np.histogram(probabilities, EDGES.probabilities)[0]

    assert -np.diff(above) * len(labels) == pytest.approx(counted)
    for score in (25, 50, 75):
        hits = found[f"ppv_score_{score}"] * found[f"share_score_{score}"]
        assert hits == pytest.approx(found[f"sensitivity_score_{score}"] * labels.mean())


def test_an_edge_that_nobody_reaches_has_no_hits_and_is_no_error():
    found = measure_operating_points(
        hold_out(np.array([True, False]), np.array([0.1, 0.05])), make_manifest(score_map=EDGES)
    )
    assert set(found.values()) == {0}


def test_taking_a_data_type_away_blanks_its_columns_and_channels_only():
    labels, probabilities = draw(40)
    rows = draw_model_rows(40)
    member = ReadsOneColumn(0)
    manifest = make_manifest(stacker=Stacker(intercept=0, coefficients={"lightgbm": 1}))
    measure_without_data(hold_out(labels, probabilities, rows), {"lightgbm": member}, manifest)

    assert len(member.asked) == len(DATA_TYPES)
    for data_type, asked in zip(DATA_TYPES, member.asked, strict=True):
        columns = np.array([kind == data_type for kind in COLUMN_TYPES])
        channels = np.array([kind == data_type for kind in CHANNEL_TYPES])
        assert columns.any()
        assert channels.any()
        assert np.isnan(asked.features[:, columns]).all()
        assert np.isnan(asked.sequences[:, :, channels]).all()
        np.testing.assert_array_equal(asked.features[:, ~columns], rows.features[:, ~columns])
        np.testing.assert_array_equal(
            asked.sequences[:, :, ~channels], rows.sequences[:, :, ~channels]
        )
    assert not np.isnan(rows.features).any()  # the rows themselves stay


@pytest.mark.parametrize("needed", DATA_TYPES)
def test_only_the_data_type_that_a_release_reads_costs_it_its_auroc(needed):
    column = COLUMN_TYPES.index(needed)
    rows = draw_model_rows(60)
    labels = rows.features[:, column] > 0.5
    manifest = make_manifest(stacker=Stacker(intercept=0, coefficients={"lightgbm": 1}))
    found = measure_without_data(
        hold_out(labels, rows.features[:, column], rows),
        {"lightgbm": ReadsOneColumn(column)},
        manifest,
    )

    assert found == {f"auroc_without_{kind}": 0.5 if kind == needed else 1 for kind in DATA_TYPES}


def test_intervals_hold_the_values_and_the_gain_over_the_baseline():
    labels, probabilities = draw()
    found = hold_out(labels, probabilities)
    intervals = measure_intervals(found)
    measured = compute_metrics(labels, probabilities) | compare_with_baseline(found)

    assert len(intervals) == 13
    for metric, (low, high) in intervals.items():
        assert low <= measured[metric] <= high, metric
    assert intervals["auroc_gain"][0] > 0
    assert intervals["brier_gain"][1] < 0
