"""Promotion gates: what a release must show, read from the reviewed file `gates.toml`."""

import math
import tomllib
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from pydantic import BaseModel, ConfigDict, model_validator

GATES_FILE = Path(__file__).with_name("gates.toml")


class Gate(BaseModel):
    """One condition on one metric, with the reason for its number."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    minimum: float | None = None
    maximum: float | None = None
    reason: str
    decided: date

    @model_validator(mode="after")
    def _bound_something(self) -> "Gate":
        if self.minimum is None and self.maximum is None:
            raise ValueError(f"gate on {self.metric} has neither minimum nor maximum")
        return self

    def find_failure(self, metrics: Mapping[str, float]) -> str | None:
        """Return why `metrics` fail this gate, or None. A missing, NaN or infinite one fails."""
        value = metrics.get(self.metric)
        if value is None or not math.isfinite(value):
            return f"{self.metric} is missing"
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


def find_failures(gates: tuple[Gate, ...], metrics: Mapping[str, float]) -> list[str]:
    """Return why a release may not become Production; empty means it may."""
    return [failure for gate in gates if (failure := gate.find_failure(metrics)) is not None]
