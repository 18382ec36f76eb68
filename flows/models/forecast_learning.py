"""How an estimator learns: the forecast and the outcome together, then the head on all rows."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from pytorch_forecasting.models.base import BaseModelWithCovariates
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from flows.datasets.rows import Labels, ModelRows
from flows.models.day_head import DayHead
from flows.models.forecast_estimator import Estimator, slice_rows
from flows.models.forecast_inputs import draw_targets
from flows.models.member import FittingData

LARGEST_GRADIENT = 1.0
WEIGHT_DECAY = 1e-4
#: Of the head, whose columns are many for the people that are learnt from.
HEAD_DECAY = 0.1
#: What the loss of the forecast counts beside that of the outcome.
FORECAST_SHARE = 0.3
HEAD_RATE = 3e-3
HEAD_EPOCHS, HEAD_PATIENCE = 30, 4
HEAD_BATCH_ROWS = 1024


@dataclass(frozen=True)
class Learning:
    """How long and how fast a network learns; it keeps the epoch best on the stopping rows."""

    rate: float
    epochs: int
    patience: int
    batch_rows: int
    #: Drawn anew for every epoch, so that a large cohort costs no more time than this.
    epoch_rows: int


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
        # One call a step for all weights: fitting a TFT takes a tenth less.
        fused=True,
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
