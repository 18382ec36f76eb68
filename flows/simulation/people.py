"""Who the simulated individuals are, and what they consent to."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from flows.simulation.latent import Block

CONSENT_SHARES = {"survey": 0.97, "wearable": 0.9, "emr": 0.85}
TRAINING_CONSENT_SHARE = 0.93


def simulate_people(block: Block) -> pl.DataFrame:
    known = block.demographics
    return pl.DataFrame(
        {
            "person_id": block.person_ids(np.arange(len(known.age))),
            "birth_date": [_find_birth_date(block.start, age) for age in known.age],
            "sex": known.sex,
            "ethnicity": known.ethnicity,
        }
    )


def _find_birth_date(start: date, age: float) -> date:
    return start - timedelta(days=float(age) * 365.25)


def simulate_consents(block: Block) -> pl.DataFrame:
    """Draw what each individual agreed to; some refuse types, some consents have expired."""
    rng = block.rng
    people = len(block.demographics.age)
    agreed = {name: rng.random(people) < share for name, share in CONSENT_SHARES.items()}
    training = rng.random(people) < TRAINING_CONSENT_SHARE
    expired = rng.random(people) < 0.02
    granted = datetime(block.start.year, block.start.month, block.start.day, tzinfo=UTC)
    end = granted + timedelta(days=block.days)
    rows: list[dict[str, Any]] = []
    for row, person_id in enumerate(block.person_ids(np.arange(people))):
        data_types = [name for name, yes in agreed.items() if yes[row]]
        if not data_types:
            continue
        rows.append(
            {
                "person_id": person_id,
                "data_types": data_types,
                "purposes": ["training", "screening"] if training[row] else ["screening"],
                "granted_at": granted,
                "expires_at": end + timedelta(days=-10 if expired[row] else 365),
            }
        )
    return pl.DataFrame(rows)
