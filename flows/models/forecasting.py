"""What the forecasting members share: from quantiles of the PHQ-9 to a probability.

Both networks see the last SEQUENCE_WEEKS weeks and forecast quantiles of the PHQ-9 of the
next FUTURE_WEEKS; a logistic of a few numbers of that forecast says how often people with
such a forecast have the outcome. Preparation, network and logistic export as one graph.
"""

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import torch
from pytorch_forecasting.models.base import BaseModelWithCovariates
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from flows.datasets.rows import ModelRows, Probabilities, Sequences
from flows.models.data_types import add_blanked_copies
from flows.models.forecast_graph import (
    HEAD_INPUTS,
    ProbabilityHead,
    ScoringGraph,
    ToQuantiles,
    export_graph,
    summarise,
)
from flows.models.forecast_inputs import Preparation, arrange, draw_targets, make_lengths
from flows.models.member import SEQUENCE_INPUT, FittingData, Pictures

LARGEST_GRADIENT = 1.0
WEIGHT_DECAY = 1e-4
ROWS_PER_PREDICTION = 2048
MakeNetwork = Callable[[], BaseModelWithCovariates]


@dataclass(frozen=True)
class Learning:
    """How long and how fast a network learns; it keeps the epoch best on the stopping rows."""

    rate: float
    epochs: int
    patience: int
    batch_rows: int
    #: Drawn anew for every epoch, so that a large cohort costs no more time than this.
    epoch_rows: int = 3500


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

    @property
    def pictures(self) -> Pictures:
        # Only the transformer can be asked what it attends to.
        return "attention" if hasattr(self.network, "interpret_output") else None

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
        return export_graph(
            ScoringGraph(self.network, self.preparation, self.head, self.to_quantiles)
        )

    def measure_importance(self) -> None:
        """Return None: the network reads weeks, not columns."""

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
    """Let a network learn the futures, then a logistic of its forecasts the labels.

    Both learn from copies that lack whole data types too; an epoch draws no more rows for it.
    """
    learnt = add_blanked_copies(data)
    with reproducible_torch(data.seed):
        preparation = Preparation(data.rows.sequences)
        network = make_quietly(make_network)
        epochs = learn_futures(network, preparation, learning, learnt)
        head = fit_head(network, preparation, learnt)
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
        drawn = torch.randperm(len(data.rows))[: learning.epoch_rows]
        for rows in drawn.split(learning.batch_rows):
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


def _slice_sequences(sequences: Sequences) -> tuple[Tensor, ...]:
    return torch.from_numpy(np.asarray(sequences, np.float32)).split(ROWS_PER_PREDICTION)


@torch.no_grad()
def _arrange_rows(
    network: BaseModelWithCovariates, preparation: Preparation, sequence: Tensor
) -> dict[str, Tensor]:
    return arrange(preparation, network.hparams.x_reals, sequence, make_lengths(len(sequence)))


def _select(given: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    return {name: values[rows] for name, values in given.items()}
