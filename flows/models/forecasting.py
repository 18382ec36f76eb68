"""What the forecasting members share: from quantiles of the PHQ-9 to a probability.

Both networks see the last SEQUENCE_WEEKS weeks and forecast quantiles of the PHQ-9 of the
next FUTURE_WEEKS; a logistic of a few numbers of that forecast says how often people with
such a forecast deteriorate. Preparation, network and logistic export as one graph.
"""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import torch
from pytorch_forecasting.models.base import BaseModelWithCovariates
from pytorch_forecasting.models.nn import LSTM
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from feature_repo.weekly_sequence import SEQUENCE_WEEKS
from flows.models.forecast_inputs import (
    CHANNELS,
    COUNTED,
    TARGET,
    FixedLength,
    Preparation,
    arrange,
    draw_targets,
    make_lengths,
)
from flows.models.member import (
    GRAPH_OUTPUT,
    SEQUENCE_INPUT,
    FittingData,
    ModelRows,
    Probabilities,
    Sequences,
)
from flows.training_set import FUTURE_WEEKS

QUANTILES = [0.1, 0.25, 0.5, 0.75, 0.9]
MEDIAN, UPPER = QUANTILES.index(0.5), QUANTILES.index(0.9)

#: The label's level and rise, in PHQ-9 points (see flows.labels).
SYMPTOMATIC, RISE = 10.0, 5.0
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

LARGEST_GRADIENT = 1.0
WEIGHT_DECAY = 1e-4
ROWS_PER_PREDICTION = 2048
#: The exporter writes no older opset; the runtime reads newer ones too.
EXPORT_OPSET = 18

MakeNetwork = Callable[[], BaseModelWithCovariates]
#: From what a network gives to the QUANTILES, [rows, FUTURE_WEEKS, quantiles], in points.
ToQuantiles = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Learning:
    """How long and how fast a network learns; it keeps the epoch best on the stopping rows."""

    rate: float
    epochs: int
    patience: int
    batch_rows: int


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


@dataclass(frozen=True)
class ForecastingMember:
    """A network of the library, what prepares its weeks, and the logistic of its forecast."""

    family: str
    network: BaseModelWithCovariates
    preparation: Preparation
    head: ProbabilityHead
    to_quantiles: ToQuantiles
    settings: dict[str, Any]

    @property
    def parameters(self) -> dict[str, Any]:
        weights = sum(weight.numel() for weight in self.network.parameters())
        return self.settings | {"weights": weights}

    @property
    def graph_input(self) -> str:
        return SEQUENCE_INPUT

    def predict(self, rows: ModelRows) -> Probabilities:
        """Score with the library's own forward pass and its own quantiles."""
        parts = [self._score(part) for part in _slice_sequences(rows.sequences)]
        return torch.cat(parts).numpy().astype(np.float64)

    @torch.no_grad()
    def _score(self, sequence: Tensor) -> Tensor:
        inputs = describe_forecast(self.network, self.preparation, sequence)
        return self.head(inputs)

    @cached_property
    def _graph(self) -> onnx.ModelProto:
        return export_graph(ScoringGraph(self))

    def export_graph(self) -> onnx.ModelProto:
        # Exporting takes seconds and is asked for at registration, evaluation and timing.
        return self._graph

    def export_texts(self) -> dict[str, str]:
        weights = dict(zip(HEAD_INPUTS, self.head.coefficients.tolist(), strict=True))
        return {"head.json": json.dumps(weights | {"intercept": self.head.intercept.item()})}


def fit_forecasting_member(
    family: str,
    make_network: MakeNetwork,
    to_quantiles: ToQuantiles,
    learning: Learning,
    data: FittingData,
) -> ForecastingMember:
    """Let a network learn the futures, then a logistic of its forecasts the labels."""
    with reproducible_torch(data.seed):
        preparation = Preparation(data.rows.sequences)
        network = make_quietly(make_network)
        epochs = learn_futures(network, preparation, learning, data)
        head = fit_head(network, preparation, data)
    settings = asdict(learning) | {"best_epoch": epochs, "hidden_size": network.hparams.hidden_size}
    return ForecastingMember(family, network, preparation, head, to_quantiles, settings)


@contextmanager
def reproducible_torch(seed: int) -> Iterator[None]:
    """Seed torch and keep it on one thread, leaving both as they were.

    On small batches a second thread costs more in waiting than it computes: an epoch took
    0.15 s on one thread and 0.5 to 3 s on two beside a busy neighbour.
    """
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def make_quietly(make_network: MakeNetwork) -> BaseModelWithCovariates:
    with warnings.catch_warnings():
        # Lightning advises on checkpoints, which are never written here.
        warnings.filterwarnings("ignore", "Attribute '.*' is an instance of `nn.Module`")
        return make_network()


def learn_futures(
    network: BaseModelWithCovariates,
    preparation: Preparation,
    learning: Learning,
    data: FittingData,
) -> int:
    """Fit the network to the futures; return the epoch whose weights were kept.

    A plain loop: Lightning's trainer took longer to start than this takes to finish.
    """
    given = _arrange_rows(network, preparation, torch.from_numpy(data.rows.sequences))
    target = draw_targets(data.futures)
    optimiser = torch.optim.AdamW(network.parameters(), lr=learning.rate, weight_decay=WEIGHT_DECAY)
    best, kept, best_epoch = np.inf, deepcopy(network.state_dict()), 0
    for epoch in range(learning.epochs):
        for rows in torch.randperm(len(data.rows)).split(learning.batch_rows):
            _take_step(network, optimiser, _select(given, rows), (target[0][rows], target[1][rows]))
        loss = _measure_stopping_loss(network, preparation, data)
        if loss < best:
            best, kept, best_epoch = loss, deepcopy(network.state_dict()), epoch
        elif epoch - best_epoch >= learning.patience:
            break
    network.load_state_dict(kept)
    network.eval()
    return best_epoch


def _take_step(
    network: BaseModelWithCovariates,
    optimiser: torch.optim.Optimizer,
    given: dict[str, Tensor],
    target: tuple[Tensor, Tensor],
) -> None:
    network.train()
    optimiser.zero_grad()
    weigh_loss(network, given, target).backward()
    nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT)
    optimiser.step()


@torch.no_grad()
def _measure_stopping_loss(
    network: BaseModelWithCovariates, preparation: Preparation, data: FittingData
) -> float:
    network.eval()
    given = _arrange_rows(network, preparation, torch.from_numpy(data.stopping_rows.sequences))
    return weigh_loss(network, given, draw_targets(data.stopping_futures)).item()


def weigh_loss(
    network: BaseModelWithCovariates, given: dict[str, Tensor], target: tuple[Tensor, Tensor]
) -> Tensor:
    """Return the network's own loss, averaged over weeks by how well they are known."""
    values, weights = target
    losses = network.loss.loss(network(given)["prediction"], values)
    losses = losses.mean(dim=2) if losses.ndim == 3 else losses
    return (losses * weights).sum() / weights.sum().clamp(min=1.0)


def fit_head(
    network: BaseModelWithCovariates, preparation: Preparation, data: FittingData
) -> ProbabilityHead:
    with torch.no_grad():
        inputs = [
            describe_forecast(network, preparation, part)
            for part in _slice_sequences(data.rows.sequences)
        ]
    model = LogisticRegression(max_iter=1000).fit(torch.cat(inputs).numpy(), data.labels)
    return ProbabilityHead(model.coef_[0].tolist(), float(model.intercept_[0]))


def describe_forecast(
    network: BaseModelWithCovariates, preparation: Preparation, sequence: Tensor
) -> Tensor:
    """Return HEAD_INPUTS, [rows, inputs], by the library's forward pass and quantiles."""
    given = _arrange_rows(network, preparation, sequence)
    quantiles = network.loss.to_quantiles(network(given)["prediction"])
    return summarise(quantiles, preparation(sequence), preparation.target_scale)


def summarise(quantiles: Tensor, columns: dict[str, Tensor], target_scale: Tensor) -> Tensor:
    """Return HEAD_INPUTS of each row: its forecast and what the forecast stood on."""
    mean, scale = target_scale
    highest = quantiles.amax(dim=1)
    last = columns[TARGET][:, -1] * scale + mean
    label = (last + RISE).clamp(min=SYMPTOMATIC)
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

    def __init__(self, member: ForecastingMember) -> None:
        super().__init__()
        self.network = deepcopy(member.network).eval().requires_grad_(False)
        self.preparation = member.preparation
        self.head = member.head
        self.to_quantiles = member.to_quantiles
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


def _slice_sequences(sequences: Sequences) -> tuple[Tensor, ...]:
    return torch.from_numpy(np.asarray(sequences, np.float32)).split(ROWS_PER_PREDICTION)


@torch.no_grad()
def _arrange_rows(
    network: BaseModelWithCovariates, preparation: Preparation, sequence: Tensor
) -> dict[str, Tensor]:
    return arrange(preparation, network.hparams.x_reals, sequence, make_lengths(len(sequence)))


def _select(given: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    return {name: values[rows] for name, values in given.items()}
