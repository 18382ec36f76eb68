"""What every model family takes and gives, so that the rest need not know which it is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

Matrix = NDArray[np.float32]
Labels = NDArray[np.bool_]
Probabilities = NDArray[np.float64]

#: Names of a member's graph input and output, as the release manifest states them.
GRAPH_INPUT = "features"
GRAPH_OUTPUT = "probability"
OPSET = 17
ML_OPSET = 3
IR_VERSION = 8

#: Largest difference between a graph and its training library that registration accepts.
PARITY_TOLERANCE = 1e-4


class ParityError(RuntimeError):
    """A graph does not give what the library gives that it was exported from."""


@dataclass(frozen=True)
class FittingData:
    """Rows to learn from, and rows of other individuals to stop early on.

    Matrices are float32 [rows, features], NaN where missing; `names` are the columns.
    """

    names: tuple[str, ...]
    inputs: Matrix
    labels: Labels
    stopping_inputs: Matrix
    stopping_labels: Labels
    seed: int


class FittedMember(Protocol):
    """A fitted model of one family."""

    @property
    def parameters(self) -> dict[str, Any]:
        """Hyper-parameters and sizes worth a reviewer's look."""

    def predict(self, inputs: Matrix) -> Probabilities:
        """Return the probability of deterioration for each row."""

    def export_graph(self) -> onnx.ModelProto:
        """Return the model as ONNX: `features` [n, width] to `probability` [n]."""

    def export_texts(self) -> dict[str, str]:
        """Return further artifacts by file name: what attributions need."""


FitMember = Callable[[FittingData], FittedMember]


def make_graph_input(width: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(GRAPH_INPUT, TensorProto.FLOAT, [None, width])


def make_graph_output() -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(GRAPH_OUTPUT, TensorProto.FLOAT, [None])


def open_graph(graph: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Open an exported graph as serving does: on one thread, which is all one row can use."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def score_graph(session: onnxruntime.InferenceSession, inputs: Matrix) -> Probabilities:
    (scored,) = session.run([GRAPH_OUTPUT], {GRAPH_INPUT: inputs})
    return np.asarray(scored, dtype=np.float64)


def check_parity(member: FittedMember, graph: onnx.ModelProto, inputs: Matrix) -> float:
    """Return the largest difference between graph and library; raise ParityError if too large."""
    difference = float(
        np.abs(score_graph(open_graph(graph), inputs) - member.predict(inputs)).max()
    )
    if not difference <= PARITY_TOLERANCE:
        raise ParityError(f"graph and library differ by {difference:.2g} on {len(inputs)} rows")
    return difference
