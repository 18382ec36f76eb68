"""Isolation forest: how unlike the training data a case is (Liu, Ting, Zhou 2008).

It estimates no outcome and has no weight: a case beyond UNFAMILIAR_SHARE of those learnt from
goes to a person, because nothing the other members say of it has been checked on its like. It
reads nothing that today's answers change, so that a worse answer cannot make a case familiar.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.ensemble import IsolationForest
from sklearn.tree._tree import Tree

from feature_repo.answer_features import ANSWER_FEATURES, NO_SYMPTOMS
from flows.datasets.rows import Matrix, ModelRows
from flows.models.member import (
    GRAPH_INPUT,
    IR_VERSION,
    ML_OPSET,
    OPSET,
    FittingData,
    make_graph_input,
    measure_difference,
    open_graph,
)
from flows.models.missing import find_medians
from flows.models.thresholds import lower_to_float32
from mlruns_config.uncertainty import UNFAMILIARITY_OUTPUT

TREES = 200
#: Rows per tree, as in the paper: more make clusters of the unusual look usual.
ROWS_PER_TREE = 256
#: Share of people like those learnt from that are called unfamiliar: what the queue can bear.
UNFAMILIAR_SHARE = 0.01

EULER_GAMMA = 0.5772156649015329
#: Domain of the tree operators in ONNX.
ML_DOMAIN = "ai.onnx.ml"
#: What a node's children are called in scikit-learn where there are none.
NO_CHILD = -1


@dataclass(frozen=True)
class AnomalyForest:
    """The forest on the columns it reads; `above` is from where on a case is unfamiliar."""

    forest: IsolationForest
    fill: Matrix
    columns: NDArray[np.int64]
    above: float

    @property
    def parameters(self) -> dict[str, Any]:
        return {
            "trees": TREES,
            "rows_per_tree": self.rows_per_tree,
            "columns": len(self.columns),
            "unfamiliar_above": self.above,
        }

    @property
    def rows_per_tree(self) -> int:
        return int(self.forest.max_samples_)

    def measure(self, rows: ModelRows) -> NDArray[np.float64]:
        """Return the paper's anomaly score: 0.5 for the usual, towards 1 for the unusual."""
        filled = _fill_missing(rows.features, self.fill)[:, self.columns]
        return _score_anomaly(self.forest, filled)

    def export_graph(self) -> onnx.ModelProto:
        nodes = [
            helper.make_node("IsNaN", [GRAPH_INPUT], ["missing"]),
            helper.make_node("Where", ["missing", "fill", GRAPH_INPUT], ["filled"]),
            make_path_length_node(self.forest, self.columns, "filled", "path_length"),
            helper.make_node("Div", ["path_length", "expected"], ["ratio"]),
            helper.make_node("Neg", ["ratio"], ["exponent"]),
            helper.make_node("Pow", ["two", "exponent"], ["column"]),
            helper.make_node("Squeeze", ["column", "last_axis"], [UNFAMILIARITY_OUTPUT]),
        ]
        output = helper.make_tensor_value_info(UNFAMILIARITY_OUTPUT, TensorProto.FLOAT, [None])
        inputs = [make_graph_input(len(self.fill))]
        graph = helper.make_graph(
            nodes, "isolation_forest", inputs, [output], self._make_constants()
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(ML_DOMAIN, ML_OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)

    def _make_constants(self) -> list[onnx.TensorProto]:
        expected = measure_average_path(np.array([self.rows_per_tree]))
        return [
            numpy_helper.from_array(self.fill, "fill"),
            numpy_helper.from_array(expected.astype(np.float32), "expected"),
            numpy_helper.from_array(np.array([2.0], np.float32), "two"),
            numpy_helper.from_array(np.array([1], np.int64), "last_axis"),
        ]


def fit(data: FittingData) -> AnomalyForest:
    """Fit the forest, and put `above` where UNFAMILIAR_SHARE of the stopping rows lie beyond.

    The stopping rows are of other individuals: those learnt from look more usual than they are.
    """
    columns = find_columns_without_answers(data.names)
    fill = find_medians(data.rows.features).astype(np.float32)
    filled = _fill_missing(data.rows.features, fill)[:, columns]
    forest = IsolationForest(
        n_estimators=TREES,
        max_samples=min(ROWS_PER_TREE, len(filled)),
        random_state=data.seed,
    ).fit(filled)
    others = _fill_missing(data.stopping_rows.features, fill)[:, columns]
    above = float(np.quantile(_score_anomaly(forest, others), 1 - UNFAMILIAR_SHARE))
    return AnomalyForest(forest, fill, columns, above)


def check_forest(forest: AnomalyForest, graph: onnx.ModelProto, rows: ModelRows) -> float:
    """Return the largest difference of graph and library; raise ParityError if too large."""
    (scored,) = open_graph(graph).run([UNFAMILIARITY_OUTPUT], {GRAPH_INPUT: rows.features})
    by_graph = scored.astype(np.float64)
    return measure_difference("graph and library of the forest", by_graph, forest.measure(rows))


def find_columns_without_answers(names: tuple[str, ...]) -> NDArray[np.int64]:
    """Return the columns that today's answers do not change. Int64 positions in the catalogue."""
    changing = [name for name in ANSWER_FEATURES if name not in NO_SYMPTOMS]
    return np.flatnonzero(~np.isin(names, changing))


def make_path_length_node(
    forest: IsolationForest, chosen: NDArray[np.int64], given: str, result: str
) -> onnx.NodeProto:
    """Return the forest as one operator that averages the path length over its trees."""
    columns: dict[str, Any] = {}
    for number, (tree, features) in enumerate(
        zip(forest.estimators_, forest.estimators_features_, strict=True)
    ):
        for name, values in _list_tree_attributes(number, tree.tree_, chosen[features]).items():
            columns.setdefault(name, []).extend(values)
    return helper.make_node(
        "TreeEnsembleRegressor",
        [given],
        [result],
        domain=ML_DOMAIN,
        aggregate_function="AVERAGE",
        n_targets=1,
        **columns,
    )


def _list_tree_attributes(
    number: int, tree: Tree, features: NDArray[np.int64]
) -> dict[str, list[Any]]:
    is_leaf = tree.children_left == NO_CHILD
    leaves = np.flatnonzero(is_leaf)
    size = tree.node_count
    return {
        "nodes_treeids": [number] * size,
        "nodes_nodeids": list(range(size)),
        "nodes_featureids": np.where(is_leaf, 0, features[tree.feature]).tolist(),
        "nodes_modes": ["LEAF" if leaf else "BRANCH_LEQ" for leaf in is_leaf],
        "nodes_values": np.where(is_leaf, 0, lower_to_float32(tree.threshold)).tolist(),
        "nodes_truenodeids": np.where(is_leaf, 0, tree.children_left).tolist(),
        "nodes_falsenodeids": np.where(is_leaf, 0, tree.children_right).tolist(),
        "target_treeids": [number] * len(leaves),
        "target_nodeids": leaves.tolist(),
        "target_ids": [0] * len(leaves),
        "target_weights": measure_path_lengths(tree)[leaves].tolist(),
    }


def measure_path_lengths(tree: Tree) -> NDArray[np.float64]:
    """Return each node's depth plus the depth its rows would need to be told apart.

    Float64 [nodes].
    """
    depths = np.zeros(tree.node_count)
    # Children come after their parents.
    for node in np.flatnonzero(tree.children_left != NO_CHILD):
        depths[[tree.children_left[node], tree.children_right[node]]] = depths[node] + 1
    return depths + measure_average_path(tree.n_node_samples)


def measure_average_path(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Return c(n), the average depth of an unsuccessful search in a tree of n rows."""
    counts = np.asarray(rows, dtype=np.float64)
    large = np.maximum(counts, 3)
    average = 2 * (np.log(large - 1) + EULER_GAMMA) - 2 * (large - 1) / large
    return np.where(counts > 2, average, np.where(counts == 2, 1.0, 0.0))


def _score_anomaly(forest: IsolationForest, filled: Matrix) -> NDArray[np.float64]:
    """Return the paper's score: 0.5 for the usual, towards 1 for the unusual."""
    return -np.asarray(forest.score_samples(filled))


def _fill_missing(inputs: Matrix, fill: Matrix) -> Matrix:
    return np.where(np.isnan(inputs), fill, inputs)
