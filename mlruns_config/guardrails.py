"""Guardrails: limits that stop a candidate, or roll a new Production release back, automatically.

The numbers are `guardrails.toml`; what is measured comes from the predictions themselves.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

GUARDRAILS_FILE = Path(__file__).with_name("guardrails.toml")


class Guardrail(BaseModel):
    """A limit on what a candidate does in use, with the reason for its number."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    measure: str
    maximum: float
    #: Fewer screenings than this prove nothing yet.
    after: int
    #: Nor do fewer decided cases of either release, where the measure is of decisions.
    after_decisions: int = 0
    reason: str

    def can_judge(self, observed: "Observed") -> bool:
        seen_enough = observed.screenings >= self.after
        return seen_enough and observed.decisions >= self.after_decisions


@dataclass(frozen=True)
class Observed:
    """What was seen of a candidate: screenings, measures by name, and decided cases.

    `decisions` is the smaller number of the two releases: in shadow a candidate has none.
    """

    screenings: int
    measures: dict[str, float]
    decisions: int = 0


def load_guardrails(path: Path = GUARDRAILS_FILE) -> tuple[Guardrail, ...]:
    """Return what stops a candidate; raises ValueError where nothing would."""
    return _load(path, "guardrail")


def load_watch_guardrails(path: Path = GUARDRAILS_FILE) -> tuple[Guardrail, ...]:
    """Return what rolls a release back that is new in Production; raises as above."""
    return _load(path, "watch")


def _load(path: Path, section: str) -> tuple[Guardrail, ...]:
    entries = tomllib.loads(path.read_text()).get(section, [])
    if not entries:
        raise ValueError(f"{path.name} names no {section}: nothing would stop a release")
    return tuple(Guardrail(**entry) for entry in entries)


def find_breaches(guardrails: tuple[Guardrail, ...], observed: Observed) -> list[str]:
    """Return why a candidate must be stopped; a measure that is missing is a breach."""
    breaches = []
    for guardrail in guardrails:
        if not guardrail.can_judge(observed):
            continue
        value = observed.measures.get(guardrail.measure)
        if value is None:
            breaches.append(f"{guardrail.measure} is not measured")
        elif not value <= guardrail.maximum:
            breaches.append(f"{guardrail.measure} is {value:.3g}, above {guardrail.maximum:g}")
    return breaches
