"""What the forecasting members share: how one is fitted, predicts, is stored and exported.

Both networks see the last SEQUENCE_WEEKS weeks and forecast quantiles of the PHQ-9 of the next
FUTURE_WEEKS. The forecast is embedded in a few numbers; a head gives the probability of the
outcome of them and of the day's questionnaires.
"""

import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from pytorch_forecasting.models.base import BaseModelWithCovariates

from flows.datasets.rows import ModelRows, Probabilities
from flows.models.data_types import add_blanked_copies
from flows.models.forecast_estimator import Estimator, slice_rows
from flows.models.forecast_graph import ScoringGraph, ToQuantiles, export_head, export_scoring
from flows.models.forecast_inputs import Preparation
from flows.models.forecast_learning import (
    Learning,
    learn_together,
    polish_head,
    reproducible_torch,
)
from flows.models.member import SEQUENCE_INPUT, DividedFit, FittingData, GraphInput, Pictures
from mlruns_config.manifest import HEAD_FILE

MakeNetwork = Callable[[], BaseModelWithCovariates]


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


def make_quietly(make_network: MakeNetwork) -> BaseModelWithCovariates:
    with warnings.catch_warnings():
        # Lightning advises on checkpoints, which are never written here.
        warnings.filterwarnings("ignore", "Attribute '.*' is an instance of `nn.Module`")
        return make_network()
