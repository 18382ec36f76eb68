import numpy as np
import pytest
import torch

from feature_repo.weekly_sequence import SEQUENCE_WEEKS
from flows.datasets.training_set import FUTURE_WEEKS
from flows.models.forecast_inputs import (
    CHANNELS,
    COVARIATES,
    MISSING_FLAGS,
    TARGET,
    WEEK,
    Preparation,
    arrange,
    draw_targets,
    make_lengths,
    make_structure,
)
from tests.fixtures.simulated_rows import simulate_rows

NAN = float("nan")


@pytest.fixture(scope="module")
def preparation() -> Preparation:
    return Preparation(simulate_rows(200, seed=3)[0].sequences)


def make_sequence(**weeks: dict[int, float]) -> torch.Tensor:
    sequence = torch.full((1, SEQUENCE_WEEKS, len(CHANNELS)), NAN)
    for channel, values in weeks.items():
        for week, value in values.items():
            sequence[0, week, CHANNELS.index(channel)] = value
    return sequence


def test_nothing_missing_leaves_the_preparation(preparation):
    rows, _, _ = simulate_rows(100, seed=4)
    assert np.isnan(rows.sequences).any()
    columns = preparation(torch.from_numpy(rows.sequences))
    assert set(columns) == {*CHANNELS, *MISSING_FLAGS}
    assert all(values.isfinite().all() for values in columns.values())


def test_a_questionnaire_stays_as_last_answered_until_answered_again(preparation):
    columns = preparation(make_sequence(phq9={3: 12.0, 10: 4.0}))
    mean, scale = preparation.target_scale
    points = columns[TARGET][0] * scale + mean
    assert points[:3] == pytest.approx([float(mean)] * 3, abs=1e-4)
    assert points[3:10] == pytest.approx([12.0] * 7, abs=1e-4)
    assert points[10:] == pytest.approx([4.0] * 16, abs=1e-4)
    assert columns["phq9_missing"].sum() == SEQUENCE_WEEKS - 2


def test_a_week_without_a_count_counts_none(preparation):
    nothing = preparation(make_sequence())["psychiatric_encounters"]
    none = preparation(make_sequence(psychiatric_encounters=dict.fromkeys(range(26), 0.0)))
    assert (nothing == none["psychiatric_encounters"]).all()


def test_a_sensor_at_fault_is_limited(preparation):
    columns = preparation(make_sequence(steps={25: 1e12}))
    assert columns["steps"].max() == 5


def test_a_channel_that_is_never_known_stays_finite():
    sequences = simulate_rows(50, seed=3)[0].sequences
    sequences[..., CHANNELS.index("steps")] = np.nan
    sequences[..., CHANNELS.index("phq9")] = np.nan
    columns = Preparation(sequences)(torch.from_numpy(sequences))
    assert all(values.isfinite().all() for values in columns.values())


@pytest.mark.parametrize("known", [[WEEK], [WEEK, *COVARIATES]])
def test_batches_are_arranged_as_the_library_arranges_its_own(preparation, known):
    structure = make_structure(known, [TARGET, *(n for n in COVARIATES if n not in known)])
    theirs, _ = next(iter(structure.to_dataloader(train=False, batch_size=1, num_workers=0)))
    columns = preparation(make_sequence())
    ours = arrange(columns, preparation.target_scale, structure.reals, make_lengths(1))
    for name, values in ours.items():
        assert values.shape == theirs[name].shape, name
        assert values.dtype == theirs[name].dtype, name
    week = structure.reals.index(WEEK)
    assert (theirs["decoder_cont"][0, :, week].diff() == 1).all()
    assert ours["decoder_cont"][0, :, week].diff() == pytest.approx([1 / 13] * 12)


def test_weeks_between_answers_are_drawn_and_weigh_less():
    futures = np.full((2, FUTURE_WEEKS), np.nan, dtype=np.float32)
    futures[0, 4], futures[0, 8] = 6, 14
    values, weights = draw_targets(futures)
    assert values[0].tolist() == [6, 6, 6, 6, 6, 8, 10, 12, 14, 14, 14, 14, 14]
    assert weights[0, [4, 8]].tolist() == [1, 1]
    assert (weights[0, 5:8] < 0.5).all()
    assert (weights[0, :4] < weights[0, 5]).all()


def test_rows_without_any_future_answer_weigh_nothing():
    values, weights = draw_targets(np.full((3, FUTURE_WEEKS), np.nan, dtype=np.float32))
    assert values.isfinite().all()
    assert weights.sum() == 0
