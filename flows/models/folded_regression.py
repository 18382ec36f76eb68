"""The closed form of a regression with splines: what it predicts, and its graph."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from scipy.special import expit

from flows.datasets.rows import Matrix, ModelRows, Probabilities
from flows.models.member import (
    GRAPH_INPUT,
    GRAPH_OUTPUT,
    IR_VERSION,
    OPSET,
    GraphInput,
    Pictures,
    make_graph_input,
    make_graph_output,
)
from flows.models.refits import make_refits_output

#: Inverse strength of the ridge. With some 120 correlated columns and a few thousand rows,
#: the weaker penalties tried (0.1, 1) gave the same AUROC and wilder coefficients.
RIDGE_C = 0.02

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Ramp:
    """One piece of a spline: `coefficient` times the share of [low, high] below the value."""

    column: int
    low: float
    high: float
    mean: float
    coefficient: float


@dataclass(frozen=True)
class FoldedRegression:
    """The closed form: log-odds = sum(c * (filled - mean) / scale) + sum(m * missing) + ramps + b.

    A column that bends has c = 0 and its `ramps` instead.
    """

    fill: list[float]
    mean: list[float]
    scale: list[float]
    coefficients: list[float]
    missing_coefficients: list[float]
    intercept: float
    ramps: list[Ramp]

    @property
    def parameters(self) -> dict[str, Any]:
        return {"ridge_c": RIDGE_C, "columns": len(self.mean), "ramps": len(self.ramps)}

    @property
    def pictures(self) -> Pictures:
        return None

    @property
    def graph_input(self) -> GraphInput:
        return GRAPH_INPUT

    def measure_importance(self) -> Numbers:
        """Return each column's weight: its coefficient, and the steepest of its ramps."""
        weights = np.abs(np.asarray(self.coefficients))
        for ramp in self.ramps:
            weights[ramp.column] += abs(ramp.coefficient)
        return weights

    def predict(self, rows: ModelRows) -> Probabilities:
        return np.asarray(expit(self.predict_log_odds(rows)), dtype=np.float64)

    def predict_log_odds(self, rows: ModelRows) -> Numbers:
        return predict_each([self], rows)[:, 0]

    def export_graph(self) -> onnx.ModelProto:
        graph = export_log_odds([self], make_graph_output())
        del graph.graph.node[-1]  # of its log-odds a member gives the probability
        graph.graph.node.extend(
            [
                helper.make_node("Sigmoid", ["log_odds_column"], ["column"]),
                helper.make_node("Squeeze", ["column", "last_axis"], [GRAPH_OUTPUT]),
            ]
        )
        graph.graph.initializer.append(numpy_helper.from_array(np.array([1]), "last_axis"))
        return graph

    def export_files(self) -> dict[str, bytes]:
        return {"linear.json": json.dumps(asdict(self)).encode()}


@dataclass(frozen=True)
class RefittedRegression:
    """Regressions on the same standardised columns: one graph with a column for each."""

    refits: list[FoldedRegression]

    def predict_log_odds(self, rows: ModelRows) -> Numbers:
        return predict_each(self.refits, rows)

    def export_graph(self) -> onnx.ModelProto:
        return export_log_odds(self.refits, make_refits_output(len(self.refits)))


def predict_each(regressions: list[FoldedRegression], rows: ModelRows) -> Numbers:
    """Return the log-odds of regressions on the same columns and ramps. Float64 [rows, count]."""
    first, inputs = regressions[0], rows.features
    missing = np.isnan(inputs)
    filled = np.where(missing, np.asarray(first.fill), inputs)
    # Of the raw values instead of the standardised ones: two passes fewer over all of them.
    weights = np.array([one.coefficients for one in regressions]) / np.asarray(first.scale)
    flags = np.array([one.missing_coefficients for one in regressions])
    log_odds = filled @ weights.T + missing.astype(float) @ flags.T
    log_odds += [one.intercept for one in regressions] - weights @ np.asarray(first.mean)
    for n, ramp in enumerate(first.ramps):
        share = climb(filled[:, ramp.column], ramp.low, ramp.high) - ramp.mean
        log_odds += np.outer(share, [one.ramps[n].coefficient for one in regressions])
    return np.asarray(log_odds, dtype=np.float64)


def export_log_odds(
    regressions: "list[FoldedRegression]", output: onnx.ValueInfoProto
) -> onnx.ModelProto:
    """Return regressions on the same columns and ramps as a graph of their log-odds [n, count]."""
    nodes = [
        helper.make_node("IsNaN", [GRAPH_INPUT], ["missing"]),
        helper.make_node("Where", ["missing", "fill", GRAPH_INPUT], ["filled"]),
        helper.make_node("Sub", ["filled", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "scale"], ["standardised"]),
        helper.make_node("MatMul", ["standardised", "coefficients"], ["weighed"]),
        helper.make_node("Cast", ["missing"], ["flags"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["flags", "missing_coefficients"], ["weighed_flags"]),
        helper.make_node("Gather", ["filled", "ramp_columns"], ["bending"], axis=1),
        helper.make_node("Sub", ["bending", "ramp_lows"], ["above"]),
        helper.make_node("Div", ["above", "ramp_widths"], ["shares"]),
        helper.make_node("Clip", ["shares", "zero", "one"], ["climbed"]),
        helper.make_node("Sub", ["climbed", "ramp_means"], ["centred_ramps"]),
        helper.make_node("MatMul", ["centred_ramps", "ramp_coefficients"], ["weighed_ramps"]),
        helper.make_node(
            "Sum",
            ["weighed", "weighed_flags", "weighed_ramps", "intercept"],
            ["log_odds_column"],
        ),
        helper.make_node("Identity", ["log_odds_column"], [output.name]),
    ]
    graph = helper.make_graph(
        nodes,
        "logistic_regression",
        [make_graph_input(len(regressions[0].mean))],
        [output],
        _make_constants(regressions),
    )
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)


def _make_constants(regressions: "list[FoldedRegression]") -> list[onnx.TensorProto]:
    first = regressions[0]
    ramps = first.ramps
    bends = np.array(
        [[ramp.coefficient for ramp in regression.ramps] for regression in regressions], np.float32
    )
    constants: dict[str, NDArray[Any]] = {
        "fill": np.array(first.fill, np.float32),
        "mean": np.array(first.mean, np.float32),
        "scale": np.array(first.scale, np.float32),
        "coefficients": _stack(regression.coefficients for regression in regressions),
        "missing_coefficients": _stack(
            regression.missing_coefficients for regression in regressions
        ),
        "intercept": np.array([regression.intercept for regression in regressions], np.float32),
        "ramp_columns": np.array([ramp.column for ramp in ramps], np.int64),
        "ramp_lows": np.array([ramp.low for ramp in ramps], np.float32),
        "ramp_widths": np.array([ramp.high - ramp.low for ramp in ramps], np.float32),
        "ramp_means": np.array([ramp.mean for ramp in ramps], np.float32),
        "ramp_coefficients": bends.reshape(len(regressions), len(ramps)).T.copy(),
        "zero": np.array(0, np.float32),
        "one": np.array(1, np.float32),
    }
    return [numpy_helper.from_array(value, name) for name, value in constants.items()]


def _stack(columns: Iterable[list[float]]) -> NDArray[np.float32]:
    return np.array(list(columns), np.float32).T.copy()


def climb(values: Numbers | Matrix, low: float, high: float) -> Numbers:
    """Return the share of [low, high] that lies below each value, 0 to 1."""
    return np.clip((np.asarray(values, np.float64) - low) / (high - low), 0, 1)
