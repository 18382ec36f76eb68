"""Temporal fusion transformer (Lim et al. 2021): quantiles of the PHQ-9 of the weeks ahead.

Which channels it selects and which weeks it attends to can be read off and drawn.
"""

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pytorch_forecasting import TemporalFusionTransformer
from pytorch_forecasting.metrics import QuantileLoss
from torch import Tensor

from feature_repo.weekly_sequence import SEQUENCE_WEEKS
from flows.datasets.rows import ModelRows
from flows.models.forecast_graph import QUANTILES
from flows.models.forecast_inputs import (
    COVARIATES,
    TARGET,
    WEEK,
    arrange,
    make_lengths,
    make_structure,
)
from flows.models.forecast_learning import Learning
from flows.models.forecasting import ForecastingFit, ForecastingMember

#: Twice the size took twice the time on the simulated cohort for the same AUROC.
HIDDEN_SIZE = 8
LEARNING = Learning(rate=1e-2, epochs=4, patience=3, batch_rows=512, epoch_rows=8192)

#: Rows that interpretations are averaged over: more change no digit that a plot shows.
ROWS_INTERPRETED = 2000


def make_network() -> TemporalFusionTransformer:
    return TemporalFusionTransformer.from_dataset(
        make_structure(known_columns=[WEEK], unknown_columns=[TARGET, *COVARIATES]),
        hidden_size=HIDDEN_SIZE,
        hidden_continuous_size=HIDDEN_SIZE,
        attention_head_size=1,
        loss=QuantileLoss(quantiles=QUANTILES),
    )


def keep_quantiles(prediction: Tensor) -> Tensor:
    return prediction


#: Fits on the sequences and futures, and ends when the stopping rows no longer gain.
fit = ForecastingFit("tft", make_network, keep_quantiles, LEARNING)


@torch.no_grad()
def interpret(member: ForecastingMember, rows: ModelRows) -> dict[str, NDArray[np.float64]]:
    """Return the share of each channel and the attention to each past week, rows averaged."""
    sequence = torch.from_numpy(rows.sequences[:ROWS_INTERPRETED])
    columns, scale = member.preparation(sequence), member.preparation.target_scale
    reals, lengths = member.network.hparams.x_reals, make_lengths(len(sequence))
    given = arrange(columns, scale, reals, lengths)
    read = member.network.interpret_output(member.network(given))
    return {
        "channels": read["encoder_variables"].mean(dim=0).numpy().astype(np.float64),
        "weeks": read["attention"].mean(dim=0).numpy().astype(np.float64)[:SEQUENCE_WEEKS],
    }


def draw_variable_importance(member: ForecastingMember, rows: ModelRows) -> Figure:
    """Draw how much weight each channel gets, averaged over rows and weeks."""
    shares = interpret(member, rows)["channels"]
    order = np.argsort(shares)
    names = [member.network.encoder_variables[n].replace("_", " ") for n in order]
    figure = Figure(figsize=(7, 0.3 * len(names) + 1.5), layout="constrained")
    axes = figure.subplots()
    axes.barh(names, 100 * shares[order])
    axes.set_xlabel("share of the variable selection, %")
    axes.set_title("What the transformer reads in the weeks before")
    return figure


def draw_attention(member: ForecastingMember, rows: ModelRows) -> Figure:
    """Draw how much the forecast attends to each week before the index date."""
    attention = interpret(member, rows)["weeks"]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(np.arange(-SEQUENCE_WEEKS, 0), attention, marker="o")
    axes.set_xlabel("weeks before the index date")
    axes.set_ylabel("attention")
    axes.set_ylim(bottom=0)
    axes.set_title("Which weeks the transformer attends to")
    return figure
