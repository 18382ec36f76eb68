"""What every model family takes and gives, so that the rest need not know which it is."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from flows.datasets.rows import Labels, Matrix, ModelRows, Probabilities, Rows
from mlruns_config.manifest import EMBEDDING

#: Names of a member's graph input (one of the two) and output, as the manifest states them.
GRAPH_INPUT: Literal["features"] = "features"
SEQUENCE_INPUT: Literal["sequence"] = "sequence"
GraphInput = Literal["features", "sequence"]
Pictures = Literal["attributions", "attention"] | None
GRAPH_OUTPUT = "probability"
OPSET = 17
ML_OPSET = 3
IR_VERSION = 8

#: Rows scored at once: the activations of a transformer for ten thousand take 300 MB.
ROWS_PER_PREDICTION = 2048
#: Largest difference between a graph and its training library that registration accepts.
PARITY_TOLERANCE = 1e-4


class ParityError(RuntimeError):
    """A graph does not give what the library gives that it was exported from."""


@dataclass(frozen=True)
class FittingData:
    """Rows to learn from, and rows of other individuals to stop early on.

    `names` are the columns of the features. `futures` are the PHQ-9 totals of the weeks
    after the index date, float32 [rows, FUTURE_WEEKS], NaN where nothing was answered: a
    forecasting member learns them beside the labels.
    """

    names: tuple[str, ...]
    rows: ModelRows
    labels: Labels
    futures: Matrix
    stopping_rows: ModelRows
    stopping_labels: Labels
    stopping_futures: Matrix
    seed: int

    def select(self, rows: Rows) -> "FittingData":
        """Return the same data with fewer rows to learn from."""
        return replace(
            self,
            rows=self.rows.select(rows),
            labels=self.labels[rows],
            futures=self.futures[rows],
        )


class FittedMember(Protocol):
    """A fitted model of one family."""

    @property
    def parameters(self) -> dict[str, Any]:
        """Hyper-parameters and sizes worth a reviewer's look."""

    @property
    def graph_input(self) -> GraphInput:
        """GRAPH_INPUT or SEQUENCE_INPUT: which part of ModelRows the graph takes."""

    @property
    def pictures(self) -> Pictures:
        """What a report draws of it: attributions of its trees, its attention, or nothing."""

    def predict(self, rows: ModelRows) -> Probabilities:
        """Return the probability of the outcome for each row."""

    def measure_importance(self) -> NDArray[np.float64] | None:
        """Return how much each column of the features weighs; None where it names no columns."""

    def export_graph(self) -> onnx.ModelProto:
        """Return the model as ONNX: its input [n, ...] to `probability` [n]."""

    def export_files(self) -> dict[str, bytes]:
        """Return further artifacts by file name: what attributions need, a network's head."""


FitMember = Callable[[FittingData], FittedMember]


class DividedFit(ABC):
    """A fit that another process can do most of: what it learnt is handed over as arrays."""

    def __call__(self, data: FittingData) -> FittedMember:
        """Return a member fitted to the data."""
        return self.assemble(data, self.learn(data))

    @abstractmethod
    def learn(self, data: FittingData) -> Any:
        """Return what was learnt, in a form that can be pickled."""

    def export(self, data: FittingData, learnt: Any) -> Any:
        """Return what was learnt with the member's graph, where to export it takes seconds."""
        return learnt

    @abstractmethod
    def assemble(self, data: FittingData, learnt: Any) -> FittedMember:
        """Return the member that was learnt from the same data."""


def make_graph_input(width: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(GRAPH_INPUT, TensorProto.FLOAT, [None, width])


def make_graph_output() -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(GRAPH_OUTPUT, TensorProto.FLOAT, [None])


def open_graph(graph: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Open an exported graph as serving does."""
    return open_session(graph.SerializeToString())


def open_session(graph: bytes | str) -> onnxruntime.InferenceSession:
    """Open a graph, or the file of one, on one thread, which is all one row can use."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def choose_input(session: onnxruntime.InferenceSession, rows: ModelRows) -> dict[str, Matrix]:
    """Return by its name what a graph reads of rows: features, and a network the sequences too."""
    given = {GRAPH_INPUT: rows.features, SEQUENCE_INPUT: rows.sequences}
    return {node.name: given[node.name] for node in session.get_inputs()}


def run_in_parts(
    session: onnxruntime.InferenceSession, outputs: Sequence[str], given: Mapping[str, Matrix]
) -> list[NDArray[Any]]:
    """Return the named outputs for all rows of `given`, ROWS_PER_PREDICTION of them at a time."""
    rows = len(next(iter(given.values())))
    parts = [
        session.run(
            outputs, {n: values[begin : begin + ROWS_PER_PREDICTION] for n, values in given.items()}
        )
        for begin in range(0, max(rows, 1), ROWS_PER_PREDICTION)
    ]
    return [np.concatenate(one) for one in zip(*parts, strict=True)]


def score_graph(session: onnxruntime.InferenceSession, rows: ModelRows) -> Probabilities:
    """Score rows with a graph of a member that estimates."""
    (scored,) = run_in_parts(session, [GRAPH_OUTPUT], choose_input(session, rows))
    return np.asarray(scored, dtype=np.float64)


def check_parity(member: FittedMember, graph: onnx.ModelProto, rows: ModelRows) -> float:
    """Return the largest difference between graph and library; raise ParityError if too large."""
    return measure_difference(
        "graph and library", score_graph(open_graph(graph), rows), member.predict(rows)
    )


def check_head(graph: onnx.ModelProto, head: bytes, rows: ModelRows) -> float:
    """Return the largest difference between a graph and its head given the graph's embedding.

    Raises ParityError where it is too large.
    """
    session = open_graph(graph)
    scored, embedded = run_in_parts(session, [GRAPH_OUTPUT, EMBEDDING], choose_input(session, rows))
    given = {EMBEDDING: embedded, GRAPH_INPUT: rows.features}
    (again,) = run_in_parts(open_session(head), [GRAPH_OUTPUT], given)
    return measure_difference("graph and head", again, scored)


def measure_difference(compared: str, ours: Probabilities, theirs: Probabilities) -> float:
    """Return the largest difference of two ways to score the same rows; `compared` names them.

    Raises ParityError where it is above PARITY_TOLERANCE or no number.
    """
    difference = float(np.abs(ours - theirs).max())
    if not difference <= PARITY_TOLERANCE:
        raise ParityError(f"{compared} differ by {difference:.2g} on {len(ours)} rows")
    return difference
