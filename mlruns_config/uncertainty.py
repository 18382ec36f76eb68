"""What a release says about how sure it is of one person.

Its members are fitted again on resampled people (bootstrap). Of each person the refits say how
far the estimate depends on who happened to be learnt from (Riley & Collins 2023). The interval
holds, for `coverage` of people, the probability that a release learnt from other people of the
same population would give: ADR 0065.
"""

from functools import cached_property
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from mlruns_config.manifest_part import ManifestPart

#: Artifact of a member's version: its refits in one graph, features to log-odds [n, refits].
REFITS_FILE = "refits.onnx"
REFITS_OUTPUT = "log_odds"
#: Output of the graph that says how unlike the training data a case is.
UNFAMILIARITY_OUTPUT = "unfamiliarity"

Numbers = NDArray[np.float64]


class RefitInterval(ManifestPart):
    """How the refits' probabilities of one person become an interval, a doubt, a confidence.

    Ranks count the sorted refits from the lowest, from 0. The interval goes from the refit at
    `low_rank` to that at `high_rank`, in log-odds `margin` further apart at each end. Each end
    is an order statistic of estimates that rise with symptoms, so it rises with them too. The
    refit at `queue_rank` is contested: where it belongs into the queue and the estimate does
    not, the refits do not agree. `widths` are quantiles, evenly spaced from 0 to 1, of the
    interval's width in log-odds among the people learnt from.
    """

    coverage: Annotated[float, Field(gt=0, lt=1)]
    refits: Annotated[int, Field(ge=2)]
    low_rank: Annotated[int, Field(ge=0)]
    high_rank: Annotated[int, Field(ge=0)]
    queue_rank: Annotated[int, Field(ge=0)]
    margin: float
    widths: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=2)]

    @model_validator(mode="after")
    def _know_every_rank(self) -> Self:
        if not self.low_rank <= self.queue_rank <= self.high_rank < self.refits:
            raise ValueError("ranks must rise from low to queue to high, below the refits")
        if sorted(self.widths) != self.widths:
            raise ValueError("widths must be quantiles: none below the one before")
        return self

    def measure_confidence(self, width: float) -> float:
        """Return the share of the people learnt from whose interval is at least as wide."""
        return float(1 - np.interp(width, *self._width_shares))

    @cached_property
    def _width_shares(self) -> tuple[Numbers, Numbers]:
        return np.array(self.widths), np.linspace(0, 1, len(self.widths))
