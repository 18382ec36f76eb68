"""What the forecasting members share: from weeks and the day's answers to a probability.

Both networks see the last SEQUENCE_WEEKS weeks and forecast quantiles of the PHQ-9 of the next
FUTURE_WEEKS. The forecast is embedded in a few numbers; a head gives the probability of the
outcome of them and of the day's questionnaires. Network, embedding and head learn the forecast
and the outcome together, then the head alone goes through all rows.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from pytorch_forecasting.models.base import BaseModelWithCovariates
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from flows.datasets.rows import Labels, Matrix, ModelRows, Probabilities
from flows.models.data_types import add_blanked_copies
from flows.models.day_head import DayHead
from flows.models.forecast_graph import (
    ScoringGraph,
    ToQuantiles,
    WeeksEmbedding,
    export_head,
    export_scoring,
    summarise,
)
from flows.models.forecast_inputs import (
    TARGET,
    Preparation,
    arrange,
    draw_targets,
    make_lengths,
)
from flows.models.member import (
    ROWS_PER_PREDICTION,
    SEQUENCE_INPUT,
    DividedFit,
    FittingData,
    GraphInput,
    Pictures,
)
from mlruns_config.manifest import HEAD_FILE

LARGEST_GRADIENT = 1.0
WEIGHT_DECAY = 1e-4
#: Of the head, whose columns are many for the people that are learnt from.
HEAD_DECAY = 0.1
#: What the loss of the forecast counts beside that of the outcome.
FORECAST_SHARE = 0.3
HEAD_RATE = 3e-3
HEAD_EPOCHS, HEAD_PATIENCE = 30, 4
HEAD_BATCH_ROWS = 1024
MakeNetwork = Callable[[], BaseModelWithCovariates]


@dataclass(frozen=True)
class Learning:
    """How long and how fast a network learns; it keeps the epoch best on the stopping rows."""

    rate: float
    epochs: int
    patience: int
    batch_rows: int
    #: Drawn anew for every epoch, so that a large cohort costs no more time than this.
    epoch_rows: int


class Estimator(nn.Module):
    """A network of the library with all that makes a probability of its forecast."""

    def __init__(self, network: BaseModelWithCovariates, data: FittingData) -> None:
        super().__init__()
        self.network = network
        self.preparation = Preparation(data.rows.sequences)
        self.embedding = WeeksEmbedding()
        self.head = DayHead(data.names, data.rows.features)

    def forecast(self, columns: dict[str, Tensor]) -> Tensor:
        """Return what the network gives of prepared columns, in the form of its own loss."""
        reals, lengths = self.network.hparams.x_reals, make_lengths(len(columns[TARGET]))
        given = arrange(columns, self.preparation.target_scale, reals, lengths)
        prediction: Tensor = self.network(given)["prediction"]
        return prediction

    def embed(self, columns: dict[str, Tensor], prediction: Tensor) -> Tensor:
        """Return the embedding, [rows, EMBEDDING_SIZE], by the library's own quantiles."""
        quantiles = self.network.loss.to_quantiles(prediction)
        scale = self.preparation.target_scale
        embedded: Tensor = self.embedding(quantiles, summarise(quantiles, columns, scale), scale)
        return embedded

    def embed_weeks(self, sequence: Tensor) -> Tensor:
        columns = self.preparation(sequence)
        return self.embed(columns, self.forecast(columns))

    def forward(self, sequence: Tensor, features: Tensor) -> Tensor:
        """Return the log-odds of the outcome, [rows]."""
        log_odds: Tensor = self.head(self.embed_weeks(sequence), features)
        return log_odds


@dataclass(frozen=True)
class Exported:
    """A member's graph, and its head alone, as they are stored."""

    graph: bytes
    head: bytes


@dataclass(frozen=True)
class ForecastingMember:
    """A fitted estimator, and how its network's output becomes quantiles in a graph."""

    family: str
    estimator: Estimator
    to_quantiles: ToQuantiles
    settings: dict[str, Any]
    width: int
    exported: Exported | None = None

    @property
    def network(self) -> BaseModelWithCovariates:
        return self.estimator.network

    @property
    def preparation(self) -> Preparation:
        return self.estimator.preparation

    @property
    def parameters(self) -> dict[str, Any]:
        weights = sum(weight.numel() for weight in self.estimator.parameters())
        return self.settings | {"weights": weights}

    @property
    def graph_input(self) -> GraphInput:
        return SEQUENCE_INPUT

    @property
    def pictures(self) -> Pictures:
        # Only the transformer can be asked what it attends to.
        return "attention" if hasattr(self.network, "interpret_output") else None

    @torch.no_grad()
    def predict(self, rows: ModelRows) -> Probabilities:
        """Score with the library's own forward pass and its own quantiles."""
        parts = [torch.sigmoid(self.estimator(*part)) for part in slice_rows(rows)]
        return torch.cat(parts).numpy().astype(np.float64)

    @cached_property
    def _exported(self) -> Exported:
        # Exporting takes seconds and is asked for at registration, evaluation and timing.
        return self.exported or self.export()

    def export(self) -> Exported:
        """Export the graph and the head as they are registered."""
        parts = self.estimator
        graph = ScoringGraph(
            parts.network, parts.preparation, parts.embedding, parts.head, self.to_quantiles
        )
        scoring, head = export_scoring(graph, self.width), export_head(parts.head, self.width)
        return Exported(scoring.SerializeToString(), head.SerializeToString())

    def measure_importance(self) -> None:
        """Return None: the network reads weeks, not columns."""

    def export_graph(self) -> onnx.ModelProto:
        return onnx.load_from_string(self._exported.graph)

    def export_files(self) -> dict[str, bytes]:
        return {HEAD_FILE: self._exported.head}


@dataclass(frozen=True)
class LearntWeights:
    """The state of an estimator by name, the epoch that it is of, and its member if exported."""

    weights: dict[str, NDArray[Any]]
    epoch: int
    exported: Exported | None = None


@dataclass(frozen=True)
class ForecastingFit(DividedFit):
    """How members of a family are fitted."""

    family: str
    make_network: MakeNetwork
    to_quantiles: ToQuantiles
    learning: Learning

    def learn(self, data: FittingData) -> LearntWeights:
        """Let network and head learn futures and labels together, then the head all rows.

        Both learn from copies that lack whole data types too; an epoch draws no more rows for it.
        """
        copied = add_blanked_copies(data)
        with reproducible_torch(data.seed):
            estimator = Estimator(make_quietly(self.make_network), data)
            epoch = learn_together(estimator, self.learning, copied)
            polish_head(estimator, copied)
        state = estimator.state_dict()
        return LearntWeights({name: tensor.numpy() for name, tensor in state.items()}, epoch)

    def export(self, data: FittingData, learnt: LearntWeights) -> LearntWeights:
        return replace(learnt, exported=self.assemble(data, learnt).export())

    def assemble(self, data: FittingData, learnt: LearntWeights) -> ForecastingMember:
        """Return the member with these weights, learnt from the same data."""
        with reproducible_torch(data.seed):
            estimator = Estimator(make_quietly(self.make_network), data)
        estimator.load_state_dict(
            {name: torch.from_numpy(array) for name, array in learnt.weights.items()}
        )
        estimator.eval()
        size = estimator.network.hparams.hidden_size
        settings = asdict(self.learning) | {"best_epoch": learnt.epoch, "hidden_size": size}
        return ForecastingMember(
            self.family,
            estimator,
            self.to_quantiles,
            settings,
            len(data.names),
            learnt.exported,
        )


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


def learn_together(estimator: Estimator, learning: Learning, data: FittingData) -> int:
    """Fit all parts to futures and labels; return the epoch whose weights were kept.

    A plain loop: Lightning's trainer took longer to start than this takes to finish.
    """
    tensors, optimiser = _Tensors(data), _make_optimiser(estimator, learning.rate)
    kept = BestWeights(estimator, learning.patience)
    for epoch in range(learning.epochs):
        estimator.train()
        drawn = torch.randperm(len(data.rows))[: learning.epoch_rows]
        for rows in drawn.split(learning.batch_rows):
            take_step(estimator, optimiser, weigh_losses(estimator, tensors, rows))
        if kept.is_over(epoch, _measure_stopping_loss(estimator, data)):
            break
    return kept.restore()


def _make_optimiser(estimator: Estimator, rate: float) -> torch.optim.Optimizer:
    others = [*estimator.network.parameters(), *estimator.embedding.parameters()]
    return torch.optim.AdamW(
        [
            {"params": others, "weight_decay": WEIGHT_DECAY},
            {"params": list(estimator.head.parameters()), "weight_decay": HEAD_DECAY},
        ],
        lr=rate,
    )


@torch.no_grad()
def _embed_all(estimator: Estimator, rows: ModelRows) -> Tensor:
    estimator.eval()
    return torch.cat([estimator.embed_weeks(weeks) for weeks, _ in slice_rows(rows)])


def polish_head(estimator: Estimator, data: FittingData) -> None:
    """Fit the head on all rows, with the embedding as it is: an epoch takes a tenth of a second."""
    embedded, features = _embed_all(estimator, data.rows), torch.from_numpy(data.rows.features)
    labels = to_targets(data.labels)
    stopping = _embed_all(estimator, data.stopping_rows)
    asked = torch.from_numpy(data.stopping_rows.features), to_targets(data.stopping_labels)
    optimiser = torch.optim.AdamW(
        estimator.head.parameters(), lr=HEAD_RATE, weight_decay=HEAD_DECAY
    )
    kept = BestWeights(estimator.head, HEAD_PATIENCE)
    kept.is_over(-1, _measure_head(estimator.head, stopping, *asked))
    for epoch in range(HEAD_EPOCHS):
        for rows in torch.randperm(len(data.rows)).split(HEAD_BATCH_ROWS):
            log_odds = estimator.head(embedded[rows], features[rows])
            loss = binary_cross_entropy_with_logits(log_odds, labels[rows])
            take_step(estimator.head, optimiser, loss)
        if kept.is_over(epoch, _measure_head(estimator.head, stopping, *asked)):
            break
    kept.restore()


class BestWeights:
    """The weights of the epoch with the least loss on the stopping rows."""

    def __init__(self, module: nn.Module, patience: int) -> None:
        self.module, self.patience = module, patience
        self.loss, self.epoch, self.weights = np.inf, 0, deepcopy(module.state_dict())

    def is_over(self, epoch: int, loss: float) -> bool:
        """Keep the weights if they are the best so far; True when too long nothing was better."""
        if loss < self.loss:
            self.loss, self.epoch = loss, epoch
            self.weights = deepcopy(self.module.state_dict())
        return epoch - self.epoch >= self.patience

    def restore(self) -> int:
        """Put the best weights back; return their epoch."""
        self.module.load_state_dict(self.weights)
        self.module.eval()
        return self.epoch


class _Tensors:
    """Rows to learn from as torch takes them; a copy with blanks has the future of its row."""

    def __init__(self, data: FittingData) -> None:
        self.sequences = torch.from_numpy(data.rows.sequences)
        self.features = torch.from_numpy(data.rows.features)
        self.labels = to_targets(data.labels)
        self.futures, self.weights = draw_targets(data.futures)


def to_targets(labels: Labels) -> Tensor:
    return torch.from_numpy(labels.astype(np.float32))


def weigh_losses(estimator: Estimator, tensors: _Tensors, rows: Tensor) -> Tensor:
    """Return the loss of the outcome and, FORECAST_SHARE of it, of the forecast."""
    columns = estimator.preparation(tensors.sequences[rows])
    prediction = estimator.forecast(columns)
    log_odds = estimator.head(estimator.embed(columns, prediction), tensors.features[rows])
    outcome = binary_cross_entropy_with_logits(log_odds, tensors.labels[rows])
    target = tensors.futures[rows], tensors.weights[rows]
    return outcome + FORECAST_SHARE * weigh_loss(estimator.network, prediction, target)


def weigh_loss(
    network: BaseModelWithCovariates, prediction: Tensor, target: tuple[Tensor, Tensor]
) -> Tensor:
    """Return the network's own loss, averaged over weeks by how well they are known."""
    values, weights = target
    losses = network.loss.loss(prediction, values)
    losses = losses.mean(dim=2) if losses.ndim == 3 else losses
    weighed: Tensor = (losses * weights).sum() / weights.sum().clamp(min=1.0)
    return weighed


def take_step(module: nn.Module, optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(module.parameters(), LARGEST_GRADIENT)
    optimiser.step()


@torch.no_grad()
def _measure_stopping_loss(estimator: Estimator, data: FittingData) -> float:
    estimator.eval()
    log_odds = torch.cat([estimator(*part) for part in slice_rows(data.stopping_rows)])
    return binary_cross_entropy_with_logits(log_odds, to_targets(data.stopping_labels)).item()


@torch.no_grad()
def _measure_head(head: DayHead, embedded: Tensor, features: Tensor, labels: Tensor) -> float:
    return binary_cross_entropy_with_logits(head(embedded, features), labels).item()


def slice_rows(rows: ModelRows) -> list[tuple[Tensor, Tensor]]:
    """Return weeks and features of the rows, as many at a time as memory is spent on."""
    return [
        (to_tensor(rows.sequences[begin:end]), to_tensor(rows.features[begin:end]))
        for begin in range(0, len(rows), ROWS_PER_PREDICTION)
        for end in [begin + ROWS_PER_PREDICTION]
    ]


def to_tensor(values: Matrix) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))
