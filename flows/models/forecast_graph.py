"""What a forecasting member scores with, from weeks to probability, and its export as a graph.

A logistic of a few numbers of the forecast (and of what it stood on) gives the probability.
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
from flows.models.forecast_inputs import (
    CHANNELS,
    COUNTED,
    TARGET,
    FixedLength,
    Preparation,
    arrange,
    make_lengths,
)
from flows.models.member import GRAPH_OUTPUT, SEQUENCE_INPUT

QUANTILES = [0.1, 0.25, 0.5, 0.75, 0.9]
MEDIAN, UPPER = QUANTILES.index(0.5), QUANTILES.index(0.9)

#: Inputs of the logistic, in tens of points where they are points.
HEAD_INPUTS = (
    "highest_median",
    "highest_upper_quantile",
    "upper_quantile_over_label",
    "rise_over_last",
    "last_phq9",
    "last_gad7",
    "wearable_missing",
    "encounters",
)

#: The exporter writes no older opset; the runtime reads newer ones too.
EXPORT_OPSET = 18


#: From what a network gives to the QUANTILES, [rows, FUTURE_WEEKS, quantiles], in points.
ToQuantiles = Callable[[Tensor], Tensor]


class ProbabilityHead(nn.Module):
    """The closed form: log-odds = sum(coefficients * inputs) + intercept."""

    coefficients: Tensor
    intercept: Tensor

    def __init__(self, coefficients: list[float], intercept: float) -> None:
        super().__init__()
        self.register_buffer("coefficients", torch.tensor(coefficients))
        self.register_buffer("intercept", torch.tensor(intercept))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.sigmoid((inputs * self.coefficients).sum(dim=1) + self.intercept)


def summarise(quantiles: Tensor, columns: dict[str, Tensor], target_scale: Tensor) -> Tensor:
    """Return HEAD_INPUTS of each row: its forecast and what the forecast stood on."""
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
    """A member as one module of one tensor, with every length fixed.

    The library asks its batches how long they are; an exporter cannot follow that. Here all
    sequences are equally long, so lengths are numbers and masks constants.
    """

    def __init__(
        self,
        network: BaseModelWithCovariates,
        preparation: Preparation,
        head: ProbabilityHead,
        to_quantiles: ToQuantiles,
    ) -> None:
        super().__init__()
        self.network = deepcopy(network).eval().requires_grad_(False)
        self.preparation = preparation
        self.head = head
        self.to_quantiles = to_quantiles
        for module in self.network.modules():
            if isinstance(module, LSTM):
                module.forward = make_one_operator(module)
        if hasattr(self.network, "get_attention_mask"):
            full = self.network.get_attention_mask(*make_lengths(1))
            self.network.get_attention_mask = lambda **_: full

    def forward(self, sequence: Tensor) -> Tensor:
        lengths = FixedLength(SEQUENCE_WEEKS), FixedLength(FUTURE_WEEKS)
        given = arrange(self.preparation, self.network.hparams.x_reals, sequence, lengths)
        quantiles = self.to_quantiles(self.network(given)["prediction"])
        columns = self.preparation(sequence)
        return self.head(summarise(quantiles, columns, self.preparation.target_scale))


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


def export_graph(module: ScoringGraph) -> onnx.ModelProto:
    """Export with any number of rows; traces of this machine are left out."""
    example = torch.full((3, SEQUENCE_WEEKS, len(CHANNELS)), float("nan"))
    with silent_exporter():
        program = torch.onnx.export(
            module.eval(),
            (example,),
            input_names=[SEQUENCE_INPUT],
            output_names=[GRAPH_OUTPUT],
            dynamic_shapes={"sequence": {0: torch.export.Dim("rows")}},
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
