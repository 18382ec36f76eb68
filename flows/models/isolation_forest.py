"""Isolation forest: how unlike everyone else somebody's features are.

It learns without labels (Liu, Ting, Zhou 2008); a logistic of one variable then says how
often the outcome follows in people that unusual. Unusual may never count as reassuring: the
logistic only rises.
"""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from scipy.special import expit, logit
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LogisticRegression
from sklearn.tree._tree import Tree

from flows.datasets.rows import Labels, Matrix, ModelRows, Probabilities
from flows.models.member import (
    GRAPH_INPUT,
    GRAPH_OUTPUT,
    IR_VERSION,
    ML_OPSET,
    OPSET,
    FittingData,
    make_graph_input,
    make_graph_output,
)
from flows.models.missing import find_medians
from flows.models.thresholds import lower_to_float32

TREES = 200
#: Rows per tree, as in the paper: more make clusters of the unusual look usual.
ROWS_PER_TREE = 256

EULER_GAMMA = 0.5772156649015329
#: Domain of the tree operators in ONNX.
ML_DOMAIN = "ai.onnx.ml"
#: What a node's children are called in scikit-learn where there are none.
NO_CHILD = -1


@dataclass(frozen=True)
class AnomalyForest:
    """Forest and logistic: log-odds = slope * anomaly score + intercept."""

    forest: IsolationForest
    fill: Matrix
    slope: float
    intercept: float

    @property
    def parameters(self) -> dict[str, Any]:
        return {"trees": TREES, "rows_per_tree": self.rows_per_tree, "slope": self.slope}

    @property
    def rows_per_tree(self) -> int:
        return int(self.forest.max_samples_)

    @property
    def graph_input(self) -> str:
        return GRAPH_INPUT

    def predict(self, rows: ModelRows) -> Probabilities:
        scores = _score_anomaly(self.forest, _fill_missing(rows.features, self.fill))
        return np.asarray(expit(self.slope * scores + self.intercept), dtype=np.float64)

    def measure_importance(self) -> None:
        """Return None: an anomaly has no column of its own."""

    def export_graph(self) -> onnx.ModelProto:
        nodes = [
            helper.make_node("IsNaN", [GRAPH_INPUT], ["missing"]),
            helper.make_node("Where", ["missing", "fill", GRAPH_INPUT], ["filled"]),
            make_path_length_node(self.forest, "filled", "path_length"),
            helper.make_node("Div", ["path_length", "expected"], ["ratio"]),
            helper.make_node("Neg", ["ratio"], ["exponent"]),
            helper.make_node("Pow", ["two", "exponent"], ["score"]),
            helper.make_node("Mul", ["score", "slope"], ["scaled"]),
            helper.make_node("Add", ["scaled", "intercept"], ["log_odds"]),
            helper.make_node("Sigmoid", ["log_odds"], ["column"]),
            helper.make_node("Squeeze", ["column", "last_axis"], [GRAPH_OUTPUT]),
        ]
        inputs = [make_graph_input(len(self.fill))]
        graph = helper.make_graph(
            nodes, "isolation_forest", inputs, [make_graph_output()], self._make_constants()
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(ML_DOMAIN, ML_OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)

    def _make_constants(self) -> list[onnx.TensorProto]:
        expected = float(measure_average_path(np.array([self.rows_per_tree]))[0])
        numbers = {
            "expected": expected,
            "two": 2.0,
            "slope": self.slope,
            "intercept": self.intercept,
        }
        scalars = [
            numpy_helper.from_array(np.array([value], np.float32), name)
            for name, value in numbers.items()
        ]
        fill = numpy_helper.from_array(self.fill, "fill")
        return [fill, numpy_helper.from_array(np.array([1], np.int64), "last_axis"), *scalars]

    def export_texts(self) -> dict[str, str]:
        return {"anomaly.json": json.dumps({"slope": self.slope, "intercept": self.intercept})}


def fit(data: FittingData) -> AnomalyForest:
    """Fit the forest on the features and its logistic on the labels."""
    fill = find_medians(data.rows.features).astype(np.float32)
    filled = _fill_missing(data.rows.features, fill)
    forest = IsolationForest(
        n_estimators=TREES,
        max_samples=min(ROWS_PER_TREE, len(filled)),
        random_state=data.seed,
    ).fit(filled)
    slope, intercept = fit_rising_logistic(_score_anomaly(forest, filled), data.labels)
    return AnomalyForest(forest, fill, slope, intercept)


def fit_rising_logistic(scores: NDArray[np.float64], labels: Labels) -> tuple[float, float]:
    """Return slope and intercept of labels on scores; a falling slope counts as none."""
    centre, spread = float(scores.mean()), max(float(scores.std()), 1e-9)
    # Two parameters and hundreds of rows need no penalty to speak of.
    model = LogisticRegression(C=1e6).fit(((scores - centre) / spread)[:, None], labels)
    slope = float(model.coef_[0, 0]) / spread
    if slope <= 0:
        return 0.0, float(logit(labels.mean()))
    return slope, float(model.intercept_[0]) - slope * centre


def make_path_length_node(forest: IsolationForest, given: str, result: str) -> onnx.NodeProto:
    """Return the forest as one operator that averages the path length over its trees."""
    columns: dict[str, Any] = {}
    for number, (tree, features) in enumerate(
        zip(forest.estimators_, forest.estimators_features_, strict=True)
    ):
        for name, values in _list_tree_attributes(number, tree.tree_, features).items():
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
    """Return each node's depth plus the depth its rows would need to be told apart."""
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
