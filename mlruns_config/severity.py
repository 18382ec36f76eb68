"""The severity rules: bands and reviews that follow from the answers alone (ADR 0029)."""

import math
import tomllib
from collections.abc import Mapping
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

RULES_FILE = Path(__file__).with_name("severity_rules.toml")


class SeverityPart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SeverityRule(SeverityPart):
    """One rule: where every measure reaches its bound, the band is at least `band`.

    `at_least` names features by which serving knows the answers. A `sent_only` rule holds for
    answers of the request, not for stored ones, whose age is unknown.
    """

    code: Annotated[str, Field(pattern=r"^[a-z0-9_]{3,40}$")]
    at_least: Annotated[dict[str, float], Field(min_length=1)]
    band: Literal["moderate", "high", "critical"]
    text: str
    source: str
    decided: date
    sent_only: bool = False

    def holds(self, values: Mapping[str, float]) -> bool:
        """Return True if every measure is known and reaches its bound."""
        return all(values.get(name, math.nan) >= bound for name, bound in self.at_least.items())


class SeverityRules(SeverityPart):
    version: Annotated[int, Field(ge=1)]
    stored_answers_max_days: Annotated[int, Field(ge=0)]
    rule: Annotated[list[SeverityRule], Field(min_length=1)]


@lru_cache(maxsize=1)
def load_severity_rules() -> SeverityRules:
    """Return the rules of RULES_FILE; raises pydantic.ValidationError for an unusable file."""
    return SeverityRules.model_validate(tomllib.loads(RULES_FILE.read_text()))
