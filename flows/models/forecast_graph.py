"""What a forecasting member scores with, from weeks to probability, and its export as graphs.

A forecast, and what it stood on, is embedded in a few numbers; a head gives the probability of
them and of the day's questionnaires.
"""

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from copy import deepcopy
from typing import Any

import onnx
import torch
from pytorch_forecasting.models.base import BaseModelWithCovariates
from pytorch_forecasting.models.nn import LSTM
from torch import Tensor, nn

from feature_repo.instruments import PHQ9_CASE_CUTOFF, PHQ9_SIGNIFICANT_CHANGE
from feature_repo.weekly_sequence import SEQUENCE_WEEKS
from flows.datasets.training_set import FUTURE_WEEKS
from flows.models.day_head import EMBEDDING_SIZE, DayHead, HeadGraph
from flows.models.forecast_inputs import (
    CHANNELS,
    COUNTED,
    TARGET,
    FixedLength,
    Preparation,
    arrange,
    make_lengths,
)
from flows.models.member import GRAPH_INPUT, GRAPH_OUTPUT, SEQUENCE_INPUT
from mlruns_config.manifest import EMBEDDING

QUANTILES = [0.1, 0.25, 0.5, 0.75, 0.9]
MEDIAN, UPPER = QUANTILES.index(0.5), QUANTILES.index(0.9)

#: What `summarise` returns of each row: numbers that a layer could only approximate.
SUMMARY_SIZE = 8

#: The exporter writes no older opset; the runtime reads newer ones too.
EXPORT_OPSET = 18


#: From what a network gives to the QUANTILES, [rows, FUTURE_WEEKS, quantiles], in points.
ToQuantiles = Callable[[Tensor], Tensor]


class WeeksEmbedding(nn.Module):
    """The weeks in EMBEDDING_SIZE numbers from -1 to 1: of the forecast and of its summary."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(FUTURE_WEEKS * len(QUANTILES) + SUMMARY_SIZE, EMBEDDING_SIZE)

    def forward(self, quantiles: Tensor, summary: Tensor, target_scale: Tensor) -> Tensor:
        mean, scale = target_scale
        # Points as they are would drive every tanh to its end, where nothing is learnt.
        forecast = ((quantiles - mean) / scale).flatten(1)
        return torch.tanh(self.layer(torch.cat([forecast, summary], dim=1)))


def summarise(quantiles: Tensor, columns: dict[str, Tensor], target_scale: Tensor) -> Tensor:
    """Return each row's forecast and what it stood on, points in tens. [rows, SUMMARY_SIZE]."""
    mean, scale = target_scale
    highest = quantiles.amax(dim=1)
    last = columns[TARGET][:, -1] * scale + mean
    label = (last + PHQ9_SIGNIFICANT_CHANGE).clamp(min=float(PHQ9_CASE_CUTOFF))
    events = torch.stack([columns[name].mean(dim=1) for name in COUNTED], dim=1)
    inputs = [
        highest[:, MEDIAN] / 10,
        highest[:, UPPER] / 10,
        (highest[:, UPPER] - label).clamp(min=0) / 10,
        (highest[:, MEDIAN] - last) / 10,
        last / 10,
        columns["gad7"][:, -1],
        columns["wearable_missing"].mean(dim=1),
        events.mean(dim=1),
    ]
    return torch.stack(inputs, dim=1)


class ScoringGraph(nn.Module):
    """A member as one module: weeks and features to probability and embedding.

    The library asks its batches how long they are; an exporter cannot follow that. Here all
    sequences are equally long, so lengths are numbers and masks constants.
    """

    def __init__(
        self,
        network: BaseModelWithCovariates,
        preparation: Preparation,
        embedding: WeeksEmbedding,
        head: DayHead,
        to_quantiles: ToQuantiles,
    ) -> None:
        super().__init__()
        self.network = deepcopy(network).eval().requires_grad_(False)
        self.preparation = preparation
        self.embedding = embedding
        self.head = HeadGraph(head)
        self.to_quantiles = to_quantiles
        for module in self.network.modules():
            if isinstance(module, LSTM):
                module.forward = make_one_operator(module)
        if hasattr(self.network, "get_attention_mask"):
            full = self.network.get_attention_mask(*make_lengths(1))
            self.network.get_attention_mask = lambda **_: full

    def forward(self, sequence: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        lengths = FixedLength(SEQUENCE_WEEKS), FixedLength(FUTURE_WEEKS)
        columns, scale = self.preparation(sequence), self.preparation.target_scale
        given = arrange(columns, scale, self.network.hparams.x_reals, lengths)
        quantiles = self.to_quantiles(self.network(given)["prediction"])
        embedding = self.embedding(quantiles, summarise(quantiles, columns, scale), scale)
        return self.head(embedding, features), embedding


def make_one_operator(lstm: LSTM) -> Callable[..., Any]:
    """Return a forward that exports the LSTM as ONNX's own, for sequences of one length.

    The exporter traces the library's as a loop: half as many nodes again, seconds more to export.
    """
    hidden = lstm.hidden_size
    weights = [_order_gates(getattr(lstm, f"weight_{kind}_l0"))[None] for kind in ("ih", "hh")]
    bias = torch.cat([_order_gates(getattr(lstm, f"bias_{kind}_l0")) for kind in ("ih", "hh")])

    def forward(x: Tensor, hx: tuple[Tensor, Tensor] | None = None, **_: Any) -> Any:
        rows, weeks = x.shape[:2]
        state = list(hx) if hx is not None else [x.new_zeros(1, rows, hidden)] * 2
        output, last, cell = torch.onnx.ops.symbolic_multi_out(
            "LSTM",
            [x.transpose(0, 1), *weights, bias[None], None, *state],
            {"hidden_size": hidden},
            dtypes=[x.dtype] * 3,
            shapes=[[weeks, 1, rows, hidden], [1, rows, hidden], [1, rows, hidden]],
        )
        return output[:, 0].transpose(0, 1), (last, cell)

    return forward


def _order_gates(weights: Tensor) -> Tensor:
    """Reorder torch's gates (input, forget, cell, output) as ONNX has them (i, o, f, c)."""
    given, forget, cell, output = weights.detach().chunk(4)
    return torch.cat([given, output, forget, cell])


@contextmanager
def silent_exporter() -> Iterator[None]:
    """Keep the exporter's words to its own developers out of a training's log.

    All of its warnings come from inside torch; what it got wrong, parity would show.
    """
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        registration.setLevel(level)


def export_scoring(graph: ScoringGraph, width: int) -> onnx.ModelProto:
    """Export a member; `width` is the number of feature columns."""
    weeks = torch.full((3, SEQUENCE_WEEKS, len(CHANNELS)), float("nan"))
    given = {SEQUENCE_INPUT: weeks, GRAPH_INPUT: torch.full((3, width), float("nan"))}
    return _export(graph, given, [GRAPH_OUTPUT, EMBEDDING])


def export_head(head: DayHead, width: int) -> onnx.ModelProto:
    """Export the head alone: embedding and features to probability."""
    given = {
        EMBEDDING: torch.zeros(3, EMBEDDING_SIZE),
        GRAPH_INPUT: torch.full((3, width), float("nan")),
    }
    return _export(HeadGraph(head), given, [GRAPH_OUTPUT])


def _export(module: nn.Module, given: dict[str, Tensor], outputs: list[str]) -> onnx.ModelProto:
    """Export with any number of rows; traces of this machine are left out."""
    rows = torch.export.Dim("rows")
    with silent_exporter():
        program = torch.onnx.export(
            module.eval(),
            tuple(given.values()),
            input_names=list(given),
            output_names=outputs,
            dynamic_shapes={name: {0: rows} for name in given},
            opset_version=EXPORT_OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None, "with dynamo=True a program is returned, not a file written"
    graph = program.model_proto
    for part in (graph, graph.graph, *graph.graph.node, *graph.graph.value_info, *graph.functions):
        del part.metadata_props[:]
        part.doc_string = ""
    return graph
