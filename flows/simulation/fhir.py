"""The simulated cohort as FHIR R4 Bulk Data (NDJSON), for trying the way of a hospital's export.

Sleep efficiency and wear time have no LOINC code in use, so they are not exported.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

import polars as pl

from feature_repo.clinical_codes import SNOMED_SYSTEM
from feature_repo.instruments import FREQUENCY_POINTS, INSTRUMENTS, LOINC_SYSTEM

Resource = dict[str, Any]
Row = dict[str, Any]

ANSWER_CODES = {points: code for code, points in FREQUENCY_POINTS.items()}
PSYCHIATRY = {"system": SNOMED_SYSTEM, "code": "394587001", "display": "Psychiatry"}
CLASSES = {"outpatient": "AMB", "emergency": "EMER", "inpatient": "IMP"}
PURPOSE_CODES = {"training": "HRESCH", "screening": "TREAT"}

#: Channel -> (LOINC or None, text, UCUM unit).
OBSERVED_CHANNELS = {
    "steps": ("41950-7", "Steps in 24 hours", "/d"),
    "active_minutes": ("101691-4", "Active minutes", "min"),
    "sleep_minutes": ("93832-4", "Sleep duration", "min"),
    "resting_heart_rate": ("40443-4", "Resting heart rate", "/min"),
    "hrv_rmssd": ("80404-7", "Heart rate variability (RMSSD)", "ms"),
}


def write_fhir_drop(tables: Iterator[dict[str, pl.DataFrame]], folder: Path) -> dict[str, int]:
    """Write the cohort as one NDJSON file per resource type; return the resources of each."""
    folder.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    with ExitStack() as stack:
        files: dict[str, TextIO] = {}
        for block in tables:
            for resource in iterate_resources(block):
                kind = resource["resourceType"]
                if kind not in files:
                    files[kind] = stack.enter_context((folder / f"{kind}.ndjson").open("w"))
                files[kind].write(json.dumps(resource) + "\n")
                counts[kind] = counts.get(kind, 0) + 1
    return counts


def iterate_resources(tables: dict[str, pl.DataFrame]) -> Iterator[Resource]:
    """Yield every resource of a block of individuals."""
    makers = {
        "people": make_patient,
        "consents": make_consent,
        "surveys": make_response,
        "emr_events": make_event,
    }
    for name, make in makers.items():
        yield from map(make, tables[name].iter_rows(named=True))
    for day in tables["wearable_days"].iter_rows(named=True):
        yield from make_observations(day)


def make_patient(row: Row) -> Resource:
    return {
        "resourceType": "Patient",
        "id": row["person_id"],
        "birthDate": row["birth_date"].isoformat(),
        "gender": row["sex"],
    }


def make_consent(row: Row) -> Resource:
    return {
        "resourceType": "Consent",
        "status": "active",
        "patient": _refer(row),
        "dateTime": row["granted_at"].isoformat(),
        "provision": {
            "type": "permit",
            "period": {
                "start": row["granted_at"].isoformat(),
                "end": row["expires_at"].isoformat(),
            },
            "class": [{"code": data_type} for data_type in row["data_types"]],
            "purpose": [{"code": PURPOSE_CODES[purpose]} for purpose in row["purposes"]],
        },
    }


def make_response(row: Row) -> Resource:
    """Return a QuestionnaireResponse; a skipped item is left out, as an export would."""
    loincs = INSTRUMENTS[row["instrument"]].item_loincs
    answers = [(loinc, row[f"item_{number}"]) for number, loinc in enumerate(loincs, 1)]
    return {
        "resourceType": "QuestionnaireResponse",
        "status": "completed",
        "subject": _refer(row),
        "authored": row["answered_at"].isoformat(),
        "item": [_make_item(loinc, points) for loinc, points in answers if points is not None],
    }


def _make_item(loinc: str, points: int) -> Resource:
    coding = {"system": LOINC_SYSTEM, "code": ANSWER_CODES[points]}
    return {"linkId": f"/{loinc}", "answer": [{"valueCoding": coding}]}


def make_event(row: Row) -> Resource:
    makers = {"diagnosis": _make_condition, "medication": _make_request}
    return makers.get(row["kind"], _make_encounter)(row)


def _make_condition(row: Row) -> Resource:
    return {
        "resourceType": "Condition",
        "subject": _refer(row),
        "code": _code(row),
        "onsetDateTime": row["started_at"].isoformat(),
    }


def _make_request(row: Row) -> Resource:
    return {
        "resourceType": "MedicationRequest",
        "status": "completed",
        "subject": _refer(row),
        "medicationCodeableConcept": _code(row),
        "authoredOn": row["started_at"].isoformat(),
    }


def _make_encounter(row: Row) -> Resource:
    service, _, setting = row["setting"].rpartition("_")
    resource = {
        "resourceType": "Encounter",
        "status": "finished",
        "class": {"code": CLASSES[setting]},
        "subject": _refer(row),
        "type": [_code(row)],
        "period": _period(row["started_at"], row["ended_at"]),
    }
    return resource | ({"serviceType": {"coding": [PSYCHIATRY]}} if service else {})


def make_observations(row: Row) -> Iterator[Resource]:
    """Yield an Observation for every channel that was measured on a day."""
    for channel, (loinc, text, unit) in OBSERVED_CHANNELS.items():
        if row[channel] is not None:
            yield {
                "resourceType": "Observation",
                "status": "final",
                "subject": _refer(row),
                "code": {"coding": [{"system": LOINC_SYSTEM, "code": loinc}], "text": text},
                "effectiveDateTime": row["date"].isoformat(),
                "valueQuantity": {"value": round(row[channel], 1), "unit": unit, "code": unit},
            }


def _refer(row: Row) -> Resource:
    return {"reference": f"Patient/{row['person_id']}"}


def _code(row: Row) -> Resource:
    return {"coding": [{"system": row["system"], "code": row["code"]}]}


def _period(start: datetime, end: datetime | None) -> Resource:
    return {"start": start.isoformat()} | ({"end": end.isoformat()} if end else {})
