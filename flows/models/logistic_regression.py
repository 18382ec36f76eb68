"""Logistic regression: the baseline every other member must beat.

Missing values are filled with the median and flagged, columns standardised, coefficients
shrunk (ridge), none of MONOTONE_COLUMNS with a coefficient below zero. All of it folds into one
closed form, which is what is exported.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from flows.datasets.rows import Labels, ModelRows, Probabilities
from flows.models.member import (
    GRAPH_INPUT,
    GRAPH_OUTPUT,
    IR_VERSION,
    OPSET,
    FittingData,
    GraphInput,
    make_graph_input,
    make_graph_output,
)
from flows.models.missing import find_medians
from flows.models.monotone import MONOTONE_COLUMNS

#: Inverse strength of the ridge. With some 120 correlated columns and a few thousand rows,
#: the weaker penalties tried (0.1, 1) gave the same AUROC and wilder coefficients.
RIDGE_C = 0.02


@dataclass(frozen=True)
class FoldedRegression:
    """The closed form: log-odds = sum(c * (filled - mean) / scale) + sum(m * missing) + b."""

    fill: list[float]
    mean: list[float]
    scale: list[float]
    coefficients: list[float]
    missing_coefficients: list[float]
    intercept: float

    @property
    def parameters(self) -> dict[str, Any]:
        return {"ridge_c": RIDGE_C, "columns": len(self.mean)}

    @property
    def graph_input(self) -> GraphInput:
        return GRAPH_INPUT

    def predict(self, rows: ModelRows) -> Probabilities:
        inputs = rows.features
        missing = np.isnan(inputs)
        filled = np.where(missing, np.asarray(self.fill), inputs)
        standardised = (filled - np.asarray(self.mean)) / np.asarray(self.scale)
        log_odds = standardised @ np.asarray(self.coefficients)
        log_odds += missing @ np.asarray(self.missing_coefficients) + self.intercept
        return np.asarray(expit(log_odds), dtype=np.float64)

    def export_graph(self) -> onnx.ModelProto:
        nodes = [
            helper.make_node("IsNaN", [GRAPH_INPUT], ["missing"]),
            helper.make_node("Where", ["missing", "fill", GRAPH_INPUT], ["filled"]),
            helper.make_node("Sub", ["filled", "mean"], ["centred"]),
            helper.make_node("Div", ["centred", "scale"], ["standardised"]),
            helper.make_node("MatMul", ["standardised", "coefficients"], ["weighed"]),
            helper.make_node("Cast", ["missing"], ["flags"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["flags", "missing_coefficients"], ["weighed_flags"]),
            helper.make_node("Sum", ["weighed", "weighed_flags", "intercept"], ["log_odds"]),
            helper.make_node("Sigmoid", ["log_odds"], ["column"]),
            helper.make_node("Squeeze", ["column", "last_axis"], [GRAPH_OUTPUT]),
        ]
        graph = helper.make_graph(
            nodes,
            "logistic_regression",
            [make_graph_input(len(self.mean))],
            [make_graph_output()],
            self._make_constants(),
        )
        opset = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)

    def _make_constants(self) -> list[onnx.TensorProto]:
        columns: dict[str, NDArray[Any]] = {
            "fill": np.array(self.fill, np.float32),
            "mean": np.array(self.mean, np.float32),
            "scale": np.array(self.scale, np.float32),
            "coefficients": np.array(self.coefficients, np.float32)[:, None],
            "missing_coefficients": np.array(self.missing_coefficients, np.float32)[:, None],
            "intercept": np.array([self.intercept], np.float32),
            "last_axis": np.array([1], np.int64),
        }
        return [numpy_helper.from_array(value, name) for name, value in columns.items()]

    def export_texts(self) -> dict[str, str]:
        return {"linear.json": json.dumps(asdict(self))}


def fit(data: FittingData) -> FoldedRegression:
    """Fit on the features; the stopping rows are not needed."""
    missing = np.isnan(data.rows.features)
    fill = find_medians(data.rows.features)
    filled = np.where(missing, fill, data.rows.features).astype(np.float64)
    mean, scale = filled.mean(axis=0), filled.std(axis=0)
    scale[scale < 1e-6] = 1.0
    standardised = (filled - mean) / scale
    rising = np.isin([*data.names, *[""] * len(data.names)], MONOTONE_COLUMNS)
    model = _fit_ridge(np.hstack([standardised, missing]), data.labels, rising)
    coefficients = model.coef_[0]
    width = len(data.names)
    return FoldedRegression(
        fill=fill.tolist(),
        mean=mean.tolist(),
        scale=scale.tolist(),
        coefficients=coefficients[:width].tolist(),
        missing_coefficients=coefficients[width:].tolist(),
        intercept=float(model.intercept_[0]),
    )


def _fit_ridge(
    columns: NDArray[np.float64], labels: Labels, rising: NDArray[np.bool_]
) -> LogisticRegression:
    """Fit with no coefficient below zero in the `rising` columns: one that would be is left out."""
    kept = np.ones(columns.shape[1])
    while True:
        model = LogisticRegression(C=RIDGE_C, max_iter=2000).fit(columns * kept, labels)
        falling = rising & (model.coef_[0] < 0)
        if not falling.any():
            return model
        kept[falling] = 0.0
