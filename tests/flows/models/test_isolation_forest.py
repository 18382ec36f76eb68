import numpy as np
import onnx
import pytest

from flows.datasets.rows import ModelRows
from flows.models import isolation_forest
from flows.models.isolation_forest import (
    AnomalyForest,
    check_forest,
    find_columns_without_answers,
    lower_to_float32,
    measure_average_path,
)
from flows.models.member import GRAPH_INPUT
from tests.fixtures.simulated_rows import COLUMNS, simulate_fitting_data, simulate_rows


@pytest.fixture(scope="module")
def forest() -> AnomalyForest:
    return isolation_forest.fit(simulate_fitting_data())


@pytest.fixture(scope="module")
def graph(forest: AnomalyForest) -> onnx.ModelProto:
    return forest.export_graph()


def make_rows(features: np.ndarray) -> ModelRows:
    return ModelRows(features.astype(np.float32), np.full((len(features), 26, 10), np.nan))


def test_graph_and_library_agree_on_rows_with_missing_values(forest, graph):
    rows, _, _ = simulate_rows(1500, seed=5)
    assert np.isnan(rows.features).any()
    assert check_forest(forest, graph, rows) < 1e-5


def test_graph_and_library_agree_on_the_thresholds_themselves(forest, graph):
    thresholds = np.concatenate([tree.tree_.threshold for tree in forest.forest.estimators_])
    edges = np.unique(thresholds.astype(np.float32))[:1200]
    rows = make_rows(np.repeat(edges[:, None], COLUMNS, axis=1))
    assert len(rows) >= 1000
    assert check_forest(forest, graph, rows) < 1e-5


def test_the_graph_holds_the_forest_as_one_operator(graph):
    operators = [node.op_type for node in graph.graph.node if node.domain == "ai.onnx.ml"]
    assert operators == ["TreeEnsembleRegressor"]
    assert [given.name for given in graph.graph.input] == [GRAPH_INPUT]


def test_a_person_of_whom_nothing_is_known_is_not_called_unfamiliar(forest, graph):
    nothing = make_rows(np.full((3, COLUMNS), np.nan))
    assert (forest.measure(nothing) <= forest.above).all()
    assert check_forest(forest, graph, nothing) < 1e-5


def test_a_column_that_is_never_known_does_not_stop_the_fit():
    data = simulate_fitting_data(200)
    data.rows.features[:, 3] = np.nan
    member = isolation_forest.fit(data)
    assert np.isfinite(member.measure(data.rows)).all()


def test_another_population_is_unfamiliar_and_the_own_is_not(forest):
    rows, _, _ = simulate_rows(800, seed=31)
    others = make_rows(rows.features * 3 + 20)

    assert (forest.measure(rows) > forest.above).mean() < 0.05
    assert (forest.measure(others) > forest.above).mean() > 0.5


def test_todays_answers_change_nothing_of_familiarity():
    names = ("phq9_total", "steps_mean_28", "phq9_item_9", "age", "phq9_change", "phq9_mean_365")
    assert find_columns_without_answers(names).tolist() == [1, 3, 5]


def test_the_same_seed_gives_the_same_forest(forest):
    again = isolation_forest.fit(simulate_fitting_data())
    rows, _, _ = simulate_rows(100, seed=9)
    assert (again.measure(rows) == forest.measure(rows)).all()


def test_lowered_thresholds_never_exceed_the_exact_ones():
    exact = np.random.default_rng(0).normal(0, 1e4, 10_000)
    lowered = lower_to_float32(exact)
    assert (lowered <= exact).all()
    assert (np.nextafter(lowered, np.float32(np.inf)) > exact).all()


def test_average_path_lengths_are_those_of_the_paper():
    # c(256) = 2 H(255) - 2 * 255 / 256.
    assert measure_average_path(np.array([1, 2])).tolist() == [0, 1]
    harmonic = np.log(255) + 0.5772156649015329
    assert measure_average_path(np.array([256]))[0] == pytest.approx(2 * harmonic - 510 / 256)
