"""A forecasting network with all that makes a probability of its forecast, as torch runs it."""

import numpy as np
import torch
from pytorch_forecasting.models.base import BaseModelWithCovariates
from torch import Tensor, nn

from flows.datasets.rows import Matrix, ModelRows
from flows.models.day_head import DayHead
from flows.models.forecast_graph import WeeksEmbedding, summarise
from flows.models.forecast_inputs import TARGET, Preparation, arrange, make_lengths
from flows.models.member import ROWS_PER_PREDICTION, FittingData


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


def slice_rows(rows: ModelRows) -> list[tuple[Tensor, Tensor]]:
    """Return weeks and features of the rows, as many at a time as memory is spent on."""
    return [
        (to_tensor(rows.sequences[begin:end]), to_tensor(rows.features[begin:end]))
        for begin in range(0, len(rows), ROWS_PER_PREDICTION)
        for end in [begin + ROWS_PER_PREDICTION]
    ]


def to_tensor(values: Matrix) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))
