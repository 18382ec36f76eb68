"""The reviewed plan of a gradual rollout (`rollout.toml`): which steps, and what ends each."""

import tomllib
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mlruns_config.arms import Rollout

PLAN_FILE = Path(__file__).with_name("rollout.toml")


class Step(BaseModel):
    """A share of individuals (0: shadow) and the evidence after which the next step is taken.

    `screenings` that both releases scored and `hours` that have passed since the step began.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    share: Annotated[float, Field(ge=0, lt=1)]
    screenings: Annotated[int, Field(gt=0)]
    hours: Annotated[float, Field(ge=0)]
    reason: str


class Watch(BaseModel):
    """How long a new Production release is watched; a breach within it rolls back."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hours: Annotated[float, Field(gt=0)]
    reason: str


@dataclass(frozen=True)
class Evidence:
    """What there is of a step: screenings scored by both releases, and its age."""

    screenings: int
    age: timedelta


class RolloutPlan(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: Annotated[list[Step], Field(alias="step", min_length=1)]
    watch: Watch

    @model_validator(mode="after")
    def _begin_in_shadow_and_rise(self) -> Self:
        if self.steps[0].share != 0:
            raise ValueError("the first step is shadow, share 0")
        if any(later.share <= earlier.share for earlier, later in pairwise(self.steps)):
            raise ValueError("the shares of the steps must rise")
        return self

    def find_step(self, rollout: Rollout) -> Step:
        """Return the step a rollout is at; with a share of its own, the last one below it."""
        return [step for step in self.steps if step.share <= rollout.share][-1]

    def find_next_share(self, rollout: Rollout) -> float | None:
        """Return the share of the next step, None where that is Production."""
        return next((step.share for step in self.steps if step.share > rollout.share), None)


def find_shortfall(step: Step, evidence: Evidence, waits_hours: bool = True) -> str | None:
    """Return what a step still lacks before the next one may be taken, or None."""
    lacking = []
    if evidence.screenings < step.screenings:
        lacking.append(f"{evidence.screenings} of {step.screenings} screenings")
    hours = evidence.age / timedelta(hours=1)
    if waits_hours and hours < step.hours:
        lacking.append(f"{hours:.0f} of {step.hours:g} hours")
    return " and ".join(lacking) or None


def load_plan(path: Path = PLAN_FILE) -> RolloutPlan:
    """Return the plan of a file; raises ValueError where it is none."""
    return RolloutPlan.model_validate(tomllib.loads(path.read_text()))
