"""A recurrent network (DeepAR's LSTM): the PHQ-9 of the weeks ahead as normal distributions.

The library's RecurrentNetwork gives single values only and refuses quantile losses; its
DeepAR is the same network with a distribution at its end (Salinas et al. 2020). It is never
fed its own samples: the weeks ahead carry the last answer on, so the same weeks always get
the same forecast.
"""

from statistics import NormalDist

import torch
from pytorch_forecasting import DeepAR
from pytorch_forecasting.metrics import NormalDistributionLoss
from torch import Tensor

from flows.models.forecast_graph import QUANTILES
from flows.models.forecast_inputs import COVARIATES, TARGET, WEEK, make_structure
from flows.models.forecast_learning import Learning
from flows.models.forecasting import ForecastingFit

#: Tried on the simulated cohort: 24 and 32 cells gained nothing in AUROC.
HIDDEN_SIZE = 16
LEARNING = Learning(rate=5e-3, epochs=8, patience=4, batch_rows=512, epoch_rows=16_384)


def make_network() -> DeepAR:
    return DeepAR.from_dataset(
        # DeepAR wants every covariate of the weeks ahead too.
        make_structure(known_columns=[WEEK, *COVARIATES], unknown_columns=[TARGET]),
        cell_type="LSTM",
        hidden_size=HIDDEN_SIZE,
        rnn_layers=1,
        loss=NormalDistributionLoss(quantiles=QUANTILES),
    )


def derive_quantiles(prediction: Tensor) -> Tensor:
    """Return the quantiles of the normals: what the loss's `to_quantiles` does, exportably.

    The last axis holds the target's centre and scale, then the standardised mean and
    standard deviation.
    """
    centre, unit, mean, deviation = (prediction[..., n, None] for n in range(4))
    steps = torch.tensor([NormalDist().inv_cdf(quantile) for quantile in QUANTILES])
    return centre + unit * (mean + deviation * steps)


#: Fits on the sequences and futures, and ends when the stopping rows no longer gain.
fit = ForecastingFit("rnn", make_network, derive_quantiles, LEARNING)
