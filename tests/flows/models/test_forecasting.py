"""What holds for both forecasting members; each is fitted once, briefly."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from sklearn.metrics import roc_auc_score

from feature_repo.catalogue import list_model_inputs
from flows.datasets.rows import ModelRows
from flows.models.data_types import blank_data_types
from flows.models.forecast_graph import export_head
from flows.models.forecast_inputs import CHANNELS, draw_targets
from flows.models.forecasting import ForecastingMember
from flows.models.member import (
    GRAPH_INPUT,
    GRAPH_OUTPUT,
    SEQUENCE_INPUT,
    FittingData,
    ParityError,
    check_head,
    check_parity,
    open_graph,
    score_graph,
)
from flows.models.monotone import MONOTONE_COLUMNS
from mlruns_config.manifest import EMBEDDING, HEAD_FILE
from tests.fixtures.brief_networks import BRIEFLY, fit_network
from tests.fixtures.simulated_rows import COLUMNS, simulate_fitting_data, simulate_rows

ANSWERS = tuple(column.name for column in list_model_inputs())[:COLUMNS]


def simulate_answers(rows: int, seed: int) -> FittingData:
    """Return rows whose columns are answers of the day."""
    return replace(simulate_fitting_data(rows, seed), names=ANSWERS)


def fit_briefly(family: str, seed: int = 1, rows: int = 800) -> ForecastingMember:
    return fit_network(family, simulate_answers(rows, seed))


@pytest.fixture(scope="module", params=sorted(BRIEFLY))
def member(request: pytest.FixtureRequest) -> ForecastingMember:
    return fit_briefly(request.param)


@pytest.fixture(scope="module")
def graph(member: ForecastingMember) -> onnx.ModelProto:
    return member.export_graph()


def make_rows(sequences: np.ndarray) -> ModelRows:
    features = np.full((len(sequences), COLUMNS), np.nan, np.float32)
    return ModelRows(features, sequences.astype(np.float32))


def test_graph_and_library_agree_on_rows_with_missing_weeks(member, graph):
    rows, _, _ = simulate_rows(1500, seed=5)
    assert np.isnan(rows.sequences).all(axis=(1, 2)).any()
    assert check_parity(member, graph, rows) < 1e-5


def test_somebody_of_whom_nothing_is_known_gets_a_finite_probability(member, graph):
    nothing = make_rows(np.full((2, 26, len(CHANNELS)), np.nan))
    assert np.isfinite(member.predict(nothing)).all()
    assert check_parity(member, graph, nothing) < 1e-5


@pytest.mark.parametrize("missing", [slice(0, 2), slice(2, 9), slice(9, 10)])
def test_a_missing_data_type_gives_a_finite_probability(member, graph, missing):
    sequences = simulate_rows(50, seed=6)[0].sequences
    sequences[:, :, missing] = np.nan
    rows = make_rows(sequences)
    assert ((member.predict(rows) > 0) & (member.predict(rows) < 1)).all()
    assert check_parity(member, graph, rows) < 1e-5


@pytest.fixture(scope="module", params=sorted(BRIEFLY))
def judge_of_severity(request: pytest.FixtureRequest) -> ForecastingMember:
    """A member whose outcome is a PHQ-9 of 10 or more in a week ahead."""
    learnt = simulate_answers(800, 1)
    stopping = find_severe(learnt.stopping_futures)
    labels = find_severe(learnt.futures)
    return fit_network(request.param, replace(learnt, labels=labels, stopping_labels=stopping))


def test_without_any_questionnaire_the_other_data_still_rank_people(judge_of_severity):
    others = simulate_answers(1200, 9)
    unasked = blank_data_types(others.rows, ("survey",), others.names)
    is_worn = ~np.isnan(unasked.sequences[:, :, 2:-1]).all(axis=(1, 2))
    estimated = judge_of_severity.predict(unasked)
    assert roc_auc_score(find_severe(others.futures)[is_worn], estimated[is_worn]) > 0.9


def test_a_more_severe_course_is_not_estimated_lower(judge_of_severity):
    rows, _, _ = simulate_rows(400, seed=7)
    known = make_rows(rows.sequences[~np.isnan(rows.sequences[:, :, 0]).all(axis=1)])
    worse = known.sequences.copy()
    worse[:, :, 0] = np.clip(worse[:, :, 0] + 6, 0, 27)
    before = judge_of_severity.predict(known)
    assert judge_of_severity.predict(make_rows(worse)).mean() > before.mean()


def find_severe(futures: np.ndarray) -> np.ndarray:
    """Return who has a PHQ-9 of 10 or more in a week ahead, bool [rows]."""
    return np.nan_to_num(futures).max(axis=1) >= 10


def test_extreme_sensor_values_give_a_finite_probability(member, graph):
    rows = make_rows(np.full((2, 26, len(CHANNELS)), 3e38))
    assert np.isfinite(member.predict(rows)).all()
    assert check_parity(member, graph, rows) < 1e-5


def test_the_graph_takes_any_number_of_rows_and_names_its_ends(graph):
    session = open_graph(graph)
    assert [node.name for node in session.get_inputs()] == [SEQUENCE_INPUT, GRAPH_INPUT]
    assert [node.name for node in session.get_outputs()] == [GRAPH_OUTPUT, EMBEDDING]
    rows, _, _ = simulate_rows(7, seed=8)
    one_by_one = [score_graph(session, rows.select(np.array([n])))[0] for n in range(7)]
    assert score_graph(session, rows) == pytest.approx(one_by_one, abs=1e-6)


def test_the_graph_is_whole_and_says_nothing_of_the_machine(graph):
    assert not any(tensor.external_data for tensor in graph.graph.initializer)
    assert b".py" not in graph.SerializeToString()


def test_no_export_is_a_pickle(member, graph):
    files = member.export_files()
    exports = [graph.SerializeToString(), *files.values()]
    assert set(files) == {HEAD_FILE}
    # Opcodes every pickle of protocol 2 or later, and every zip of torch.save, begins with.
    assert not any(export.startswith((b"\x80", b"PK")) for export in exports)


def test_a_worse_answer_of_the_day_never_lowers_the_estimate(member):
    rows, _, _ = simulate_rows(400, seed=13)
    before = member.predict(rows)
    assert set(ANSWERS) <= set(MONOTONE_COLUMNS)
    for column in range(COLUMNS):
        worse = rows.features.copy()
        worse[:, column] += 3
        raised = member.predict(ModelRows(worse, rows.sequences))
        assert (raised >= before - 1e-9).all(), ANSWERS[column]


def test_worse_answers_of_the_day_raise_the_estimate_of_the_same_weeks(member):
    rows, _, _ = simulate_rows(400, seed=14)
    mild, severe = (
        member.predict(ModelRows(np.full_like(rows.features, level), rows.sequences))
        for level in (2, 20)
    )
    assert (severe > mild + 0.01).all()


@pytest.fixture(scope="module")
def other_head() -> bytes:
    """The head of a member of other rows, exported without its network, which takes seconds."""
    other = fit_briefly("rnn", seed=4, rows=200)
    return export_head(other.estimator.head, other.width).SerializeToString()


def test_the_head_of_another_member_is_refused(graph, other_head):
    rows, _, _ = simulate_rows(50, seed=15)
    with pytest.raises(ParityError, match="graph and head differ"):
        check_head(graph, other_head, rows)


def test_the_head_gives_of_the_embedding_what_the_graph_gives(member, graph):
    rows, _, _ = simulate_rows(300, seed=16)
    assert check_head(graph, member.export_files()[HEAD_FILE], rows) < 1e-6


def test_forecasts_tell_those_who_deteriorate_from_others(member):
    rows, labels, _ = simulate_rows(1500, seed=11)
    assert roc_auc_score(labels, member.predict(rows)) > 0.6


def test_quantiles_of_the_forecast_rise(member):
    rows, _, _ = simulate_rows(100, seed=12)
    quantiles = read_quantiles(member, rows)
    assert (quantiles[:, :, -1] > quantiles[:, :, 0]).mean() > 0.99


def read_quantiles(member: ForecastingMember, rows: ModelRows) -> np.ndarray:
    columns = member.preparation(torch.from_numpy(rows.sequences))
    with torch.no_grad():
        return member.to_quantiles(member.estimator.forecast(columns)).numpy()


@pytest.mark.parametrize("family", sorted(BRIEFLY))
def test_the_same_seed_gives_the_same_member_and_leaves_torch_alone(family):
    rows, _, _ = simulate_rows(100, seed=9)
    torch.manual_seed(3)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    first = fit_briefly(family, rows=200).predict(rows)
    assert torch.get_num_threads() == threads
    assert (torch.get_rng_state() == state).all()
    torch.manual_seed(99)
    assert (fit_briefly(family, rows=200).predict(rows) == first).all()
    assert (fit_briefly(family, seed=2, rows=200).predict(rows) != first).any()


@pytest.mark.parametrize("family", sorted(BRIEFLY))
def test_a_network_learns_from_outcomes_alone_where_no_future_is_known(family):
    data, others = simulate_answers(800, 1), simulate_answers(400, 9)
    futures = np.full_like(data.futures, np.nan)
    outcomes = replace(
        data,
        futures=futures,
        stopping_futures=futures[: len(data.stopping_rows)],
        labels=find_severe(data.futures),
        stopping_labels=find_severe(data.stopping_futures),
    )
    assert draw_targets(futures)[1].sum() == 0
    estimated = fit_network(family, outcomes).predict(others.rows)
    assert roc_auc_score(find_severe(others.futures), estimated) > 0.85
