"""Promotion gates: what a release must show, read from the reviewed file `gates.toml`."""

import math
import tomllib
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from pydantic import BaseModel, ConfigDict, model_validator

GATES_FILE = Path(__file__).with_name("gates.toml")
#: Metric of a release's run: the version of the Production release it was compared with.
COMPARED_WITH = "compared_with_release"
#: Metric of a release's run: the best of the releases that have been in Production.
BEST_SO_FAR = "best_release_so_far"


class Gate(BaseModel):
    """One condition on one metric, with the reason for its number.

    One `versus_production` is of a comparison with the release that is in Production; it is
    asked where there is one, and a comparison with another release counts as missing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    minimum: float | None = None
    maximum: float | None = None
    reason: str
    decided: date
    versus_production: bool = False

    @model_validator(mode="after")
    def _bound_something(self) -> "Gate":
        if self.minimum is None and self.maximum is None:
            raise ValueError(f"gate on {self.metric} has neither minimum nor maximum")
        return self

    def find_failure(self, metrics: Mapping[str, float]) -> str | None:
        """Return why `metrics` fail this gate, or None. A missing, NaN or infinite one fails."""
        value = metrics.get(self.metric)
        if value is None or not math.isfinite(value):
            compare = ": compare it with Production (deployment comparison)"
            return f"{self.metric} is missing{compare * self.versus_production}"
        if self.minimum is not None and value < self.minimum:
            return f"{self.metric} is {value:.4g}, at least {self.minimum:g} is needed"
        if self.maximum is not None and value > self.maximum:
            return f"{self.metric} is {value:.4g}, at most {self.maximum:g} is allowed"
        return None


def load_gates(path: Path = GATES_FILE) -> tuple[Gate, ...]:
    """Return the gates of a file; raises ValueError when it has none."""
    gates = tuple(Gate(**entry) for entry in tomllib.loads(path.read_text()).get("gate", []))
    if not gates:
        raise ValueError(f"{path.name} names no gate: everything would pass")
    return gates


def select_gates(gates: tuple[Gate, ...], version: int, production: int | None) -> tuple[Gate, ...]:
    """Return the gates a version must pass, given the release that is in Production."""
    has_rival = production not in (None, version)
    return tuple(gate for gate in gates if has_rival or not gate.versus_production)


def drop_stale_comparisons(
    gates: tuple[Gate, ...], metrics: Mapping[str, float], production: int | None
) -> dict[str, float]:
    """Return the metrics without those of a comparison with another release than Production."""
    stale = metrics.get(COMPARED_WITH) != production
    dropped = {gate.metric for gate in gates if gate.versus_production and stale}
    return {name: value for name, value in metrics.items() if name not in dropped}


def find_failures(gates: tuple[Gate, ...], metrics: Mapping[str, float]) -> list[str]:
    """Return why a release may not become Production; empty means it may."""
    return [failure for gate in gates if (failure := gate.find_failure(metrics)) is not None]
