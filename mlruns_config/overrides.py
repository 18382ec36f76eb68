"""Gate overrides: a named decision to let one release pass one gate until a date.

An override is a ledger row (result `overridden`), so it cannot be taken out of the record. It
covers one version and one metric that was measured; a missing one stays a failure.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from sqlalchemy import Row

from mlruns_config.gates import Gate

#: Long enough to retrain and review; longer is a change of the gate, which has its own file.
LONGEST = timedelta(days=30)


@dataclass(frozen=True)
class Override:
    """A gate that is left out; `until` is the last day (UTC) on which it is."""

    metric: str
    until: date
    actor: str

    def describe(self) -> str:
        return f"gate {self.metric} overridden by {self.actor} until {self.until}"


def find_flaw(
    override: Override, gates: Iterable[Gate], metrics: Mapping[str, float], today: date
) -> str | None:
    """Return why an override cannot be accepted, or None."""
    if override.metric not in {gate.metric for gate in gates}:
        return f"{override.metric} is not a gate"
    if not math.isfinite(metrics.get(override.metric, math.nan)):
        return f"{override.metric} is missing: what was not measured cannot be overridden"
    if override.until < today:
        return f"an override until {override.until} has expired already"
    if override.until > today + LONGEST:
        return f"an override lasts {LONGEST.days} days at most, until {today + LONGEST}"
    return None


def list_in_force(ledger: Iterable[Row[Any]], today: date) -> dict[str, Override]:
    """Return the overrides in one version's ledger that have not expired, by metric."""
    overrides = (_read(entry) for entry in ledger if entry.result == "overridden")
    return {override.metric: override for override in overrides if override.until >= today}


def apply_overrides(
    gates: Iterable[Gate], metrics: Mapping[str, float], overrides: Mapping[str, Override]
) -> tuple[list[str], list[Override]]:
    """Return the failures that stay, and the overrides that were needed."""
    failures: list[str] = []
    used: dict[str, Override] = {}
    for gate in gates:
        failure = gate.find_failure(metrics)
        override = overrides.get(gate.metric)
        measured = math.isfinite(metrics.get(gate.metric, math.nan))
        if failure is not None and override is not None and measured:
            used[gate.metric] = override
        elif failure is not None:
            failures.append(failure)
    return failures, list(used.values())


def _read(entry: Row[Any]) -> Override:
    return Override(entry.gates["metric"], date.fromisoformat(entry.gates["until"]), entry.actor)
