"""Who the simulated individuals are, and what they consent to."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from flows.simulation.latent import BLOCK_SIZE, Block

CONSENT_SHARES = {"survey": 0.97, "wearable": 0.9, "emr": 0.85}
TRAINING_CONSENT_SHARE = 0.93
ETHNICITIES = ("white", "black", "hispanic", "asian", "other")
ETHNICITY_SHARES = (0.58, 0.14, 0.16, 0.08, 0.04)


def simulate_people(block: Block) -> pl.DataFrame:
    rng = block.rng
    age_days = rng.triangular(18, 32, 80, BLOCK_SIZE) * 365.25
    births = [block.start - timedelta(days=float(days)) for days in age_days]
    return pl.DataFrame(
        {
            "person_id": block.person_ids(np.arange(BLOCK_SIZE)),
            "birth_date": births,
            "sex": rng.choice(
                ["female", "male", "other", "unknown"], BLOCK_SIZE, p=[0.58, 0.4, 0.01, 0.01]
            ),
            "ethnicity": rng.choice(ETHNICITIES, BLOCK_SIZE, p=ETHNICITY_SHARES),
        }
    )


def simulate_consents(block: Block) -> pl.DataFrame:
    """Draw what each individual agreed to; some refuse types, some consents have expired."""
    rng = block.rng
    agreed = {name: rng.random(BLOCK_SIZE) < share for name, share in CONSENT_SHARES.items()}
    training = rng.random(BLOCK_SIZE) < TRAINING_CONSENT_SHARE
    expired = rng.random(BLOCK_SIZE) < 0.02
    granted = datetime(block.start.year, block.start.month, block.start.day, tzinfo=UTC)
    end = granted + timedelta(days=block.days)
    rows = []
    for row, person_id in enumerate(block.person_ids(np.arange(BLOCK_SIZE))):
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
