import torch
from pytorch_forecasting.metrics import NormalDistributionLoss

from flows.models import rnn
from flows.models.forecast_graph import QUANTILES


def test_quantiles_in_closed_form_are_the_librarys():
    loss = NormalDistributionLoss(quantiles=QUANTILES)
    loss._transformation = None  # what rescaling with an identity normaliser sets
    generator = torch.Generator().manual_seed(0)
    prediction = torch.rand(20, 13, 4, generator=generator) + 0.1
    # The library takes the centre and scale of a row as the same in all its weeks.
    prediction[:, :, :2] = prediction[:, :1, :2]
    assert torch.allclose(rnn.derive_quantiles(prediction), loss.to_quantiles(prediction))
