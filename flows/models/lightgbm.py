"""Gradient-boosted trees (LightGBM), monotone in MONOTONE_COLUMNS."""

import re
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
import onnx
import onnxmltools
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxmltools.convert.common.data_types import FloatTensorType

from flows.datasets.rows import ModelRows, Probabilities
from flows.models.data_types import add_blanked_copies, keep_features
from flows.models.member import (
    GRAPH_INPUT,
    GRAPH_OUTPUT,
    IR_VERSION,
    ML_OPSET,
    OPSET,
    FittingData,
    GraphInput,
    Pictures,
    make_graph_input,
    make_graph_output,
)
from flows.models.monotone import MONOTONE_COLUMNS
from flows.models.refits import Counts, make_refits_output
from flows.models.side_by_side import open_pool
from flows.models.thresholds import lower_to_float32

MAX_TREES = 400
STOP_AFTER_ROUNDS = 30
#: Bins of a column in refits: a quarter of the usual, for half the time.
REFIT_BINS = 63
#: Learning rate of the refits: a third of the trees, which serving walks for each refit.
REFIT_RATE = 0.12

#: The converter writes this opset; the runtime reads newer ones too.
CONVERTER_OPSET = 15

PARAMETERS: dict[str, Any] = {
    "objective": "binary",
    "metric": "binary_logloss",
    "learning_rate": 0.04,
    # Shallow: out of fold no worse than 15 leaves of any depth (AUROC 0.793 against 0.790),
    # and an explanation costs a screening half as much.
    "num_leaves": 12,
    "max_depth": 4,
    "min_data_in_leaf": 60,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    # The "advanced" method lets one row in a hundred fall by up to a point when answers get worse;
    # "basic" none, at the same AUROC (0.863 on 2,775 simulated rows).
    "monotone_constraints_method": "basic",
    # Same seed, same trees: reviewers re-run trainings.
    "deterministic": True,
    "force_row_wise": True,
    # Measured on 5,000 rows: one thread 0.7 s; two on a busy machine 15 s, most of it waiting.
    "num_threads": 1,
    "verbosity": -1,
}


@dataclass(frozen=True)
class BoostedTrees:
    booster: lightgbm.Booster
    width: int

    @property
    def parameters(self) -> dict[str, Any]:
        return PARAMETERS | {"trees": self.booster.num_trees()}

    @property
    def pictures(self) -> Pictures:
        return "attributions"

    @property
    def graph_input(self) -> GraphInput:
        return GRAPH_INPUT

    def predict(self, rows: ModelRows) -> Probabilities:
        return np.asarray(self.booster.predict(rows.features), dtype=np.float64)

    def measure_importance(self) -> NDArray[np.float64]:
        """Return each column's total gain. Float64 [columns]."""
        return np.asarray(self.booster.feature_importance("gain"), np.float64)

    def export_graph(self) -> onnx.ModelProto:
        return _keep_positive_class(_convert(self.booster, self.width), self.width)

    def export_files(self) -> dict[str, bytes]:
        return {"model.txt": self.booster.model_to_string().encode()}


def fit(data: FittingData) -> BoostedTrees:
    """Fit on the features, stopping when the stopping rows no longer gain."""
    data = add_blanked_copies(keep_features(data))
    learning = lightgbm.Dataset(data.rows.features, data.labels, feature_name=list(data.names))
    stopping = learning.create_valid(data.stopping_rows.features, data.stopping_labels)
    booster = lightgbm.train(
        constrain(data),
        learning,
        num_boost_round=MAX_TREES,
        valid_sets=[stopping],
        callbacks=[lightgbm.early_stopping(STOP_AFTER_ROUNDS, verbose=False)],
    )
    # Only the trees up to the best round are kept, in the graph as in the text.
    text = booster.model_to_string(num_iteration=booster.best_iteration)
    return BoostedTrees(lightgbm.Booster(model_str=round_thresholds(text)), len(data.names))


def constrain(data: FittingData) -> dict[str, Any]:
    """Return the parameters with the constraints of these columns and the seed."""
    constraints = [int(name in MONOTONE_COLUMNS) for name in data.names]
    return PARAMETERS | {"monotone_constraints": constraints, "seed": data.seed}


def refit(member: BoostedTrees, data: FittingData, counts: Counts) -> "RefittedTrees":
    """Fit again for each row of `counts`: fewer trees that learn faster."""
    copied = add_blanked_copies(keep_features(data))
    parameters = constrain(data) | {"learning_rate": REFIT_RATE, "max_bin": REFIT_BINS}
    trees = max(1, round(member.booster.num_trees() * PARAMETERS["learning_rate"] / REFIT_RATE))
    # Binned once: each refit takes its rows out of it.
    everything = lightgbm.Dataset(
        copied.rows.features, copied.labels, feature_name=list(data.names), params=parameters
    ).construct()

    def fit_drawn(often: NDArray[np.float64]) -> lightgbm.Booster:
        drawn = np.flatnonzero(often)
        learning = everything.subset(drawn.tolist()).construct()
        learning.set_weight(often[drawn])
        booster = lightgbm.train(parameters, learning, num_boost_round=trees)
        return lightgbm.Booster(model_str=round_thresholds(booster.model_to_string()))

    # Rows, then their copies. A fit has one thread and leaves Python's lock, so two go together.
    with open_pool() as pool:
        boosters = list(pool.map(fit_drawn, np.hstack([counts, counts])))
    return RefittedTrees(boosters, len(data.names))


@dataclass(frozen=True)
class RefittedTrees:
    """Boosters on the same columns: one ensemble with a target for each."""

    boosters: list[lightgbm.Booster]
    width: int

    def predict_log_odds(self, rows: ModelRows) -> NDArray[np.float64]:
        log_odds = [booster.predict(rows.features, raw_score=True) for booster in self.boosters]
        return np.column_stack(log_odds)

    def export_graph(self) -> onnx.ModelProto:
        columns: dict[str, Any] = {}
        trees = 0
        for target, booster in enumerate(self.boosters):
            trees += _add_trees(columns, _convert(booster, self.width), trees, target)
        output = make_refits_output(len(self.boosters))
        node = helper.make_node(
            "TreeEnsembleRegressor",
            [GRAPH_INPUT],
            [output.name],
            domain="ai.onnx.ml",
            n_targets=len(self.boosters),
            **columns,
        )
        graph = helper.make_graph([node], "refits", [make_graph_input(self.width)], [output])
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def _add_trees(columns: dict[str, Any], model: onnx.ModelProto, first: int, target: int) -> int:
    """Append a converted booster's trees, numbered from `first`, for one target; count them."""
    (node,) = [node for node in model.graph.node if node.op_type == "TreeEnsembleClassifier"]
    given: dict[str, Any] = {
        attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute
    }
    trees = max(given["nodes_treeids"]) + 1
    for name, values in given.items():
        if name.startswith("nodes_"):
            decoded: list[Any] = [
                value.decode() if isinstance(value, bytes) else value for value in values
            ]
            shifted = (
                [tree_id + first for tree_id in decoded] if name == "nodes_treeids" else decoded
            )
            columns.setdefault(name, []).extend(shifted)
    leaves = {
        "target_treeids": [tree_id + first for tree_id in given["class_treeids"]],
        "target_nodeids": given["class_nodeids"],
        "target_ids": [target] * len(given["class_nodeids"]),
        "target_weights": given["class_weights"],
    }
    for name, values in leaves.items():
        columns.setdefault(name, []).extend(values)
    return int(trees)


def _convert(booster: lightgbm.Booster, width: int) -> onnx.ModelProto:
    return onnxmltools.convert_lightgbm(
        booster,
        initial_types=[(GRAPH_INPUT, FloatTensorType([None, width]))],
        target_opset=CONVERTER_OPSET,
        zipmap=False,
    )


def round_thresholds(model: str) -> str:
    """Lower every threshold of a text model to the next float32.

    Inputs are float32, so this changes no prediction; but a graph's thresholds are float32
    too, and rounding them to the nearest one sends some rows down the other branch.
    """
    rounded = re.sub(r"^threshold=(.*)$", _round_line, model, flags=re.MULTILINE)
    # The header's byte counts no longer hold; without them LightGBM reads tree by tree.
    return re.sub(r"^tree_sizes=.*\n", "", rounded, flags=re.MULTILINE)


def _round_line(line: re.Match[str]) -> str:
    exact = np.array(line.group(1).split(), dtype=np.float64)
    return "threshold=" + " ".join(repr(float(value)) for value in lower_to_float32(exact))


def _keep_positive_class(model: onnx.ModelProto, width: int) -> onnx.ModelProto:
    """Reduce the converter's outputs to the probability of the positive class, [n]."""
    (probabilities,) = [out.name for out in model.graph.output if out.name != "label"]
    model.graph.initializer.append(numpy_helper.from_array(np.array(1, np.int64), "positive"))
    model.graph.node.append(
        helper.make_node("Gather", [probabilities, "positive"], [GRAPH_OUTPUT], axis=1)
    )
    del model.graph.output[:]
    model.graph.output.append(make_graph_output())
    del model.graph.input[:]
    model.graph.input.append(make_graph_input(width))
    return model
