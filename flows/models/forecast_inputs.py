"""What the forecasting members are given: weeks without gaps, arranged as the library wants.

Nothing is left missing: questionnaires stay as last answered, wearables take their mean,
counts take none, and flags say which weeks were made up.
"""

from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_forecasting import TimeSeriesDataSet
from pytorch_forecasting.data import TorchNormalizer
from torch import Tensor, nn

from feature_repo.weekly_sequence import SEQUENCE_CHANNELS, SEQUENCE_WEEKS
from flows.datasets.rows import Matrix, Sequences
from flows.datasets.training_set import FUTURE_WEEKS

CHANNELS = tuple(SEQUENCE_CHANNELS)
TARGET = "phq9"
#: Questionnaires stay as last answered until answered again.
CARRIED = tuple(name for name, (_, _, kind) in SEQUENCE_CHANNELS.items() if kind == "survey")
WEARABLE = tuple(name for name, (_, _, kind) in SEQUENCE_CHANNELS.items() if kind == "wearable")
#: Counts: a week without any entry is a week without any event.
COUNTED = tuple(name for name, (_, _, kind) in SEQUENCE_CHANNELS.items() if kind == "emr")
#: What is said of missing weeks: one flag per questionnaire, the share of wearable channels.
MISSING_FLAGS = (*(f"{name}_missing" for name in CARRIED), "wearable_missing")
#: Position in time, known in advance: 0 is the first week after the index date.
WEEK = "week"
COVARIATES = (*(name for name in CHANNELS if name != TARGET), *MISSING_FLAGS)

#: Weights in the loss: weeks between two answers, and weeks before the first or after the
#: last, are drawn, not observed.
INTERPOLATED_WEIGHT = 0.2
EXTENDED_WEIGHT = 0.05
#: Standardised values beyond this are sensors at fault, not people.
LARGEST_STANDARDISED = 5.0


class Preparation(nn.Module):
    """Fill, standardise and flag the weeks of a sequence; nothing missing comes out."""

    mean: Tensor
    scale: Tensor
    counted: Tensor
    earlier: Tensor

    def __init__(self, sequences: Sequences) -> None:
        super().__init__()
        self.register_buffer("counted", torch.tensor([name in COUNTED for name in CHANNELS]))
        self.register_buffer("earlier", torch.ones(SEQUENCE_WEEKS, SEQUENCE_WEEKS).tril() > 0)
        counts = self._count_none(torch.from_numpy(sequences)).reshape(-1, len(CHANNELS)).double()
        present = [column[~column.isnan()] for column in counts.T]
        mean = [float(values.mean()) if len(values) else 0.0 for values in present]
        scale = [float(values.std()) if len(values) > 1 else 1.0 for values in present]
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("scale", torch.tensor(scale).clamp(min=1e-3))

    @property
    def target_scale(self) -> Tensor:
        """Return mean and standard deviation of the PHQ-9, in points."""
        target = CHANNELS.index(TARGET)
        return torch.stack([self.mean[target], self.scale[target]])

    def forward(self, sequence: Tensor) -> dict[str, Tensor]:
        """Return one [rows, weeks] per name of CHANNELS and MISSING_FLAGS."""
        missing = sequence.isnan()
        standardised = (self._count_none(sequence) - self.mean) / self.scale
        limited = standardised.clamp(-LARGEST_STANDARDISED, LARGEST_STANDARDISED)
        filled = torch.where(missing & ~self.counted, 0.0, limited)
        columns = {name: filled[:, :, n] for n, name in enumerate(CHANNELS)}
        absent = {name: missing[:, :, n] for n, name in enumerate(CHANNELS)}
        for name in CARRIED:
            columns[name] = self._carry_forward(columns[name], absent[name])
            columns[f"{name}_missing"] = absent[name].float()
        unworn = torch.stack([absent[name].float() for name in WEARABLE], dim=2)
        return columns | {"wearable_missing": unworn.mean(dim=2)}

    def _count_none(self, sequence: Tensor) -> Tensor:
        return torch.where(sequence.isnan() & self.counted, 0.0, sequence)

    def _carry_forward(self, values: Tensor, absent: Tensor) -> Tensor:
        weeks = torch.arange(SEQUENCE_WEEKS)
        present_weeks = torch.where(absent, -1, weeks)
        latest = torch.where(self.earlier, present_weeks[:, None, :], -1).amax(dim=2)
        carried = values.gather(1, latest.clamp(min=0))
        return torch.where(latest >= 0, carried, 0.0)


class FixedLength(int):
    """A length all rows of a batch share, where the library asks a tensor for its extremes."""

    def max(self) -> "FixedLength":
        return self

    def min(self) -> "FixedLength":
        return self


def make_structure(known_columns: list[str], unknown_columns: list[str]) -> TimeSeriesDataSet:
    """Return the library's description of a sequence: which columns, how many weeks.

    Known columns are given for the weeks ahead too. The networks are built from it; their
    batches are made by `arrange`, which costs a hundredth of the data set's own sampling.
    """
    weeks = SEQUENCE_WEEKS + FUTURE_WEEKS
    frame = pd.DataFrame({name: np.zeros(weeks) for name in (TARGET, *COVARIATES)})
    frame[WEEK] = np.arange(weeks)
    frame["individual"] = "0"
    return TimeSeriesDataSet(
        frame.assign(time=np.arange(weeks)),
        time_idx="time",
        target=TARGET,
        group_ids=["individual"],
        min_encoder_length=SEQUENCE_WEEKS,
        max_encoder_length=SEQUENCE_WEEKS,
        min_prediction_length=FUTURE_WEEKS,
        max_prediction_length=FUTURE_WEEKS,
        time_varying_known_reals=known_columns,
        time_varying_unknown_reals=unknown_columns,
        target_normalizer=TorchNormalizer(method="identity"),
        scalers={name: None for name in [*known_columns, *unknown_columns] if name != TARGET},
    )


def arrange(
    columns: dict[str, Tensor], target_scale: Tensor, reals: list[str], lengths: tuple[Any, Any]
) -> dict[str, Tensor]:
    """Return a batch of prepared columns as the library's networks take it.

    The weeks ahead are weeks of which nothing is known yet: the last answers carried on,
    everything else at its mean and flagged missing.
    """
    rows = columns[TARGET].shape[0]
    week = torch.arange(-SEQUENCE_WEEKS, FUTURE_WEEKS) / FUTURE_WEEKS
    columns = columns | {WEEK: week[:SEQUENCE_WEEKS].expand(rows, -1)}
    ahead = {name: torch.zeros(rows, FUTURE_WEEKS) for name in CHANNELS}
    ahead |= {name: torch.ones(rows, FUTURE_WEEKS) for name in MISSING_FLAGS}
    ahead |= {name: columns[name][:, -1:].expand(-1, FUTURE_WEEKS) for name in CARRIED}
    ahead[WEEK] = week[SEQUENCE_WEEKS:].expand(rows, -1)
    return {
        "encoder_cat": torch.zeros(rows, SEQUENCE_WEEKS, 0, dtype=torch.long),
        "decoder_cat": torch.zeros(rows, FUTURE_WEEKS, 0, dtype=torch.long),
        "encoder_cont": torch.stack([columns[name] for name in reals], dim=2),
        "decoder_cont": torch.stack([ahead[name] for name in reals], dim=2),
        "encoder_lengths": lengths[0],
        "decoder_lengths": lengths[1],
        "target_scale": target_scale.expand(rows, -1),
    }


def make_lengths(rows: int) -> tuple[Tensor, Tensor]:
    """Return the lengths of every row as the library wants them."""
    return torch.full((rows,), SEQUENCE_WEEKS), torch.full((rows,), FUTURE_WEEKS)


def draw_targets(futures: Matrix) -> tuple[Tensor, Tensor]:
    """Return the PHQ-9 of every week ahead and its weight, [rows, FUTURE_WEEKS] each.

    Weeks without an answer lie on a line between the answers around them; rows without any
    answer weigh nothing.
    """
    values = np.zeros_like(futures)
    weights = np.zeros_like(futures)
    weeks = np.arange(FUTURE_WEEKS)
    for row, future in enumerate(futures):
        answered_weeks = np.flatnonzero(~np.isnan(future))
        if len(answered_weeks):
            values[row] = np.interp(weeks, answered_weeks, future[answered_weeks])
            inside = (weeks >= answered_weeks[0]) & (weeks <= answered_weeks[-1])
            weights[row] = np.where(inside, INTERPOLATED_WEIGHT, EXTENDED_WEIGHT)
            weights[row, answered_weeks] = 1.0
    return torch.from_numpy(values), torch.from_numpy(weights)
