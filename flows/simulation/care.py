"""Encounters, diagnoses and medications as weekly hazards that rise with severity."""

import numpy as np
import polars as pl

from flows.simulation.latent import Block, make_instants

ICD10 = "http://hl7.org/fhir/sid/icd-10-cm"
RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
SNOMED = "http://snomed.info/sct"


def simulate_emr_events(block: Block) -> pl.DataFrame:
    """Draw encounters, diagnoses and medications as weekly hazards that rise with severity."""
    kinds = [
        # kind, system, code, setting, log weekly hazard at severity 0, effect of severity
        ("encounter", SNOMED, "185347001", "outpatient", -3.2, 0.1),
        ("encounter", SNOMED, "50849002", "emergency", -5.6, 0.15),
        ("encounter", SNOMED, "32485007", "inpatient", -6.6, 0.15),
        ("encounter", SNOMED, "390906007", "psychiatric_outpatient", -3.3, 0.55),
        ("encounter", SNOMED, "4525004", "psychiatric_emergency", -7.6, 0.85),
        ("encounter", SNOMED, "305351004", "psychiatric_inpatient", -8.3, 0.95),
        ("diagnosis", ICD10, "F32.9", None, -5.4, 0.7),
        ("diagnosis", ICD10, "F33.1", None, -6.2, 0.8),
        ("diagnosis", ICD10, "F41.1", None, -5.6, 0.55),
        ("diagnosis", ICD10, "F10.20", None, -6.9, 0.45),
        ("diagnosis", ICD10, "I10", None, -6.0, 0.05),
        ("medication", RXNORM, "36437", None, -4.6, 0.6),  # sertraline
        ("medication", RXNORM, "321988", None, -5.0, 0.55),  # escitalopram
        ("medication", RXNORM, "51272", None, -6.6, 0.7),  # quetiapine
        ("medication", RXNORM, "6470", None, -6.0, 0.5),  # lorazepam
        ("medication", RXNORM, "29046", None, -5.2, 0.0),  # lisinopril
    ]
    frames = [_simulate_event_kind(block, *kind) for kind in kinds]
    return pl.concat(frames).sort("person_id", "started_at", "code")


def _simulate_event_kind(
    block: Block,
    kind: str,
    system: str,
    code: str,
    setting: str | None,
    log_hazard: float,
    effect: float,
) -> pl.DataFrame:
    rng = block.rng
    weeks = block.days // 7
    hazard = np.exp(log_hazard + effect * block.severity[:, :weeks])
    person, week = np.nonzero(rng.random(hazard.shape) < hazard)
    day = week * 7 + rng.integers(0, 7, len(week))
    started = make_instants(block.start, day, rng.integers(0, 24 * 60, len(day)))
    lengths = {"medication": 60 * 24 * 60, "encounter": 60}
    lengths_by_setting = {"inpatient": 4 * 24 * 60, "psychiatric_inpatient": 11 * 24 * 60}
    minutes = lengths_by_setting.get(setting or "", lengths.get(kind, 0))
    return pl.DataFrame(
        {
            "person_id": block.person_ids(person),
            "kind": [kind] * len(day),
            "system": [system] * len(day),
            "code": [code] * len(day),
            "started_at": started,
            "setting": pl.Series([setting] * len(day), dtype=pl.String),
        }
    ).with_columns(
        (pl.col("started_at") + pl.duration(minutes=minutes) if minutes else pl.lit(None))
        .cast(pl.Datetime("us", "UTC"))
        .alias("ended_at")
    )
