"""Encounters, diagnoses and medications: weekly hazards that rise with severity, and treatment."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from flows.simulation.latent import BLOCK_SIZE, Block, Period, make_instants
from flows.simulation.processes import Bools, Floats, Ints

ICD10 = "http://hl7.org/fhir/sid/icd-10-cm"
RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
SNOMED = "http://snomed.info/sct"
SERTRALINE, ESCITALOPRAM = "36437", "321988"
SERTRALINE_SHARE = 0.6

MINUTES_PER_DAY = 24 * 60
MINUTES = {"medication": 60 * MINUTES_PER_DAY, "encounter": 60}
MINUTES_BY_SETTING = {
    "inpatient": 4 * MINUTES_PER_DAY,
    "psychiatric_inpatient": 11 * MINUTES_PER_DAY,
}

#: Which factor of a group's care applies: flows/simulation/groups.py.
Access = Literal["usual", "access", "emergency"]


@dataclass(frozen=True)
class EventKind:
    """A kind of event, and its weekly hazard: logarithm at severity 0, and rise with severity."""

    kind: str
    system: str
    code: str
    log_hazard: float
    effect: float
    setting: str | None = None
    access: Access = "usual"


KINDS = (
    EventKind("encounter", SNOMED, "185347001", -3.2, 0.1, "outpatient"),
    EventKind("encounter", SNOMED, "50849002", -5.6, 0.15, "emergency"),
    EventKind("encounter", SNOMED, "32485007", -6.6, 0.15, "inpatient"),
    EventKind("encounter", SNOMED, "390906007", -3.2, 0.55, "psychiatric_outpatient", "access"),
    EventKind("encounter", SNOMED, "4525004", -7.6, 0.95, "psychiatric_emergency", "emergency"),
    EventKind("encounter", SNOMED, "305351004", -8.2, 1.05, "psychiatric_inpatient"),
    EventKind("diagnosis", ICD10, "F32.9", -5.3, 0.7, access="access"),
    EventKind("diagnosis", ICD10, "F33.1", -6.1, 0.8, access="access"),
    EventKind("diagnosis", ICD10, "F41.1", -5.5, 0.55, access="access"),
    EventKind("diagnosis", ICD10, "F10.20", -6.9, 0.45),
    EventKind("diagnosis", ICD10, "I10", -6.0, 0.05),
    EventKind("medication", RXNORM, "51272", -6.5, 0.7, access="access"),  # quetiapine
    EventKind("medication", RXNORM, "6470", -5.9, 0.5, access="access"),  # lorazepam
    EventKind("medication", RXNORM, "29046", -5.2, 0.0),  # lisinopril
)


def simulate_emr_events(block: Block) -> pl.DataFrame:
    """Draw the events of each kind, and the prescriptions of the simulated treatment.

    The record begins PAST_WEEKS before the first day.
    """
    weeks = block.days // 7
    present = Period(
        block.start, block.severity[:, :weeks], block.treatment.ordered[:, :weeks], block.rng
    )
    frames = [_draw_events(block, present, kind) for kind in KINDS]
    # An individual takes the same antidepressant again.
    takes_sertraline = block.rng.random(BLOCK_SIZE) < SERTRALINE_SHARE
    frames += _prescribe_antidepressants(block, present, takes_sertraline)
    frames += [_draw_events(block, block.past, kind) for kind in KINDS]
    frames += _prescribe_antidepressants(block, block.past, takes_sertraline)
    return pl.concat(frames).sort("person_id", "started_at", "code")


def _draw_events(block: Block, period: Period, kind: EventKind) -> pl.DataFrame:
    factor = _find_access(block, kind.access)[:, None]
    hazard = np.exp(kind.log_hazard + kind.effect * period.severity) * factor
    person, week = np.nonzero(period.rng.random(hazard.shape) < hazard)
    return _tabulate(block, period, kind, person, week)


def _find_access(block: Block, access: Access) -> Floats:
    found = {"access": block.differences.access, "emergency": block.differences.emergency}
    return found.get(access, np.ones(BLOCK_SIZE))


def _prescribe_antidepressants(
    block: Block, period: Period, takes_sertraline: Bools
) -> list[pl.DataFrame]:
    """Return the orders of each antidepressant."""
    person, week = np.nonzero(period.ordered)
    first = takes_sertraline[person]
    return [
        _tabulate(
            block, period, EventKind("medication", RXNORM, code, 0, 0), person[taken], week[taken]
        )
        for code, taken in ((SERTRALINE, first), (ESCITALOPRAM, ~first))
    ]


def _tabulate(
    block: Block, period: Period, kind: EventKind, person: Ints, week: Ints
) -> pl.DataFrame:
    rng, events = period.rng, len(person)
    day = week * 7 + rng.integers(0, 7, events)
    started = make_instants(period.start, day, rng.integers(0, MINUTES_PER_DAY, events))
    minutes = MINUTES_BY_SETTING.get(kind.setting or "", MINUTES.get(kind.kind, 0))
    return pl.DataFrame(
        {
            "person_id": block.person_ids(person),
            "kind": [kind.kind] * events,
            "system": [kind.system] * events,
            "code": [kind.code] * events,
            "started_at": started,
            "setting": pl.Series([kind.setting] * events, dtype=pl.String),
        }
    ).with_columns(
        (pl.col("started_at") + pl.duration(minutes=minutes) if minutes else pl.lit(None))
        .cast(pl.Datetime("us", "UTC"))
        .alias("ended_at")
    )
